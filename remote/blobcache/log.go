package blobcache

import "os"

// OpenLog opens the log that programs keep in the directory, for appending. One
// of more than limit bytes is put aside first, in place of the one that was put
// aside before.
func (c *Cache) OpenLog(limit int64) (*os.File, error) {
	if c.readOnly != nil {
		return nil, c.readOnly
	}
	if st, err := c.files.Stat(logName); err == nil && st.Size > limit {
		if err := c.files.Rename(logName, oldLogName); err != nil {
			return nil, err
		}
	}
	return openOver(c.files, logName, os.O_WRONLY|os.O_APPEND)
}
