// Probe is what images of tests run: it says what a process in a container finds, and
// does as it is told. Its arguments are verbs, carried out in their order:
//
//	report         print what it finds, as JSON
//	say TEXT       print a line
//	warn TEXT      print a line to stderr
//	stdin          print what comes on stdin, and then how many bytes that were
//	signals        print each signal that comes, until SIGUSR2, which ends the verb
//	sizes          print the size of the terminal, and again whenever SIGWINCH comes, until a line on stdin
//	write FILE     make a file
//	sums DIR       print the SHA-256 of every file below a directory, read past what the kernel keeps
//	same DIR SUM   as sums, and end with code 98 if the SHA-256 of all that is printed is not this one
//	sleep SECONDS  do nothing
//	exit N         end with a code
//	crash          die by SIGSEGV, even as process 1
//	keyrings       print what the kernel says to who asks for the session's keyring
package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	for args := os.Args[1:]; len(args) > 0; {
		n, err := do(args)
		if err != nil {
			fmt.Fprintln(os.Stderr, "probe:", err)
			os.Exit(99)
		}
		args = args[n:]
	}
}

// do carries out the first verb, and returns how many arguments that were.
func do(args []string) (n int, err error) {
	switch args[0] {
	case "report":
		return 1, printReport()
	case "stdin":
		read, err := io.Copy(os.Stdout, os.Stdin)
		fmt.Printf("[%d bytes]\n", read)
		return 1, err
	case "signals":
		return 1, printSignals()
	case "sizes":
		return 1, printSizes()
	case "crash":
		return 1, crash()
	case "keyrings":
		_, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, false)
		fmt.Println(err)
		return 1, nil
	}
	if len(args) < 2 {
		return 0, fmt.Errorf("%q: no such verb, or it wants more", args[0])
	}
	switch args[0] {
	case "say":
		_, err = fmt.Println(args[1])
	case "warn":
		_, err = fmt.Fprintln(os.Stderr, args[1])
	case "sums":
		err = printSums(os.Stdout, args[1])
	case "same":
		if len(args) < 3 {
			return 0, fmt.Errorf("same wants a directory and a sum")
		}
		all := sha256.New()
		if err = printSums(io.MultiWriter(os.Stdout, all), args[1]); err == nil && fmt.Sprintf("%x", all.Sum(nil)) != args[2] {
			os.Exit(98)
		}
		return 3, err
	case "write":
		err = os.WriteFile(args[1], []byte("written\n"), 0o666)
	case "sleep":
		var seconds float64
		seconds, err = strconv.ParseFloat(args[1], 64)
		time.Sleep(time.Duration(seconds * float64(time.Second)))
	case "exit":
		var code int
		if code, err = strconv.Atoi(args[1]); err == nil {
			os.Exit(code)
		}
	default:
		err = fmt.Errorf("%q: no such verb", args[0])
	}
	return 2, err
}

func printReport() error {
	r, err := newReport()
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", "\t")
	return out.Encode(r)
}

// printSignals prints the names of signals. Those that stop and go on are the kernel's.
func printSignals() error {
	c := make(chan os.Signal, 16)
	signal.Notify(c)
	fmt.Println("ready")
	for s := range c {
		switch s {
		case syscall.SIGURG, syscall.SIGCHLD: // Go's own
		case syscall.SIGUSR2:
			return nil
		default:
			fmt.Println("signal:", unix.SignalName(s.(syscall.Signal)))
		}
	}
	return nil
}

func printSizes() error {
	c := make(chan os.Signal, 16)
	signal.Notify(c, syscall.SIGWINCH)
	line := make(chan bool)
	go func() {
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n') // its end will do
		close(line)
	}()
	for {
		size, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
		if err != nil {
			return err
		}
		fmt.Printf("size: %dx%d\n", size.Col, size.Row)
		select {
		case <-c:
		case <-line:
			return nil
		}
	}
}

// crash has the kernel kill this process. Process 1 cannot send itself a signal that
// does so, but a fault does.
func crash() error {
	var none [4]uint64 // struct sigaction: SIG_DFL
	if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGSEGV), uintptr(unsafe.Pointer(&none)), 0, 8, 0, 0); errno != 0 {
		return errno
	}
	page, err := unix.Mmap(-1, 0, 4096, unix.PROT_NONE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	page[0] = 1
	return fmt.Errorf("alive after a fault")
}
