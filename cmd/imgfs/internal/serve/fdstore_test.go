package serve

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A service manager gets a file with a message.
func TestSendFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	t.Setenv("NOTIFY_SOCKET", name)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	if err := sendFile(write, "FDSTORE=1", "FDNAME=x"); err != nil {
		t.Fatal(err)
	}
	write.Close()
	text, oob := make([]byte, 100), make([]byte, unix.CmsgSpace(4))
	if err := manager.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, m, _, _, err := manager.ReadMsgUnix(text, oob)
	if err != nil || string(text[:n]) != "FDSTORE=1\nFDNAME=x" {
		t.Fatalf("the message is %q, %v", text[:n], err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:m])
	if err != nil || len(messages) != 1 {
		t.Fatalf("%d messages, %v", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		t.Fatalf("files %v, %v", fds, err)
	}
	came := os.NewFile(uintptr(fds[0]), "came")
	if _, err := came.WriteString("it"); err != nil {
		t.Fatal(err)
	}
	came.Close()
	if got, err := io.ReadAll(read); string(got) != "it" {
		t.Errorf("%q came through the file, %v", got, err)
	}
	os.Remove(name)
	if err := sendFile(read); err == nil {
		t.Error("a message is sent to nobody")
	}
}
