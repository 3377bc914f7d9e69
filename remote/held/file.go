package held

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/imgfs/imgfs/remote/internal/nameless"
)

// maxRecord bounds what is read of a file with a record: an image's documents have at most
// 32 MiB.
const maxRecord = 64 << 20

// WriteFile returns a file in memory that holds a value as JSON.
func WriteFile(name string, value any) (*os.File, error) {
	data, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	f, err := nameless.Memory(name)
	if err != nil {
		return nil, err
	}
	if _, err := f.WriteAt(data, 0); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// ReadFile reads a value from a file that WriteFile has returned, maybe to another
// process.
func ReadFile(f *os.File, value any) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if st.Size() > maxRecord {
		return fmt.Errorf("%s: it has %d bytes, more than %d", f.Name(), st.Size(), maxRecord)
	}
	data := make([]byte, st.Size())
	if _, err := f.ReadAt(data, 0); err != nil && err != io.EOF {
		return err
	}
	return json.Unmarshal(data, value)
}
