// A test of a copy, in Go: go build window.go
//
//	sudo zctrace serve -- ./window FILE COPY result.json
//	zctrace report result.json --max-copies 0.01
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
)

const (
	protocol = 1          // docs/reference/windows.md
	marker   = 0x7a637472 // prctl(2) has no such option: EINVAL, and nothing else
	program  = 9
	process  = 2 // the scope: all threads, and all processes that are started
)

// Window counts what the CPU copies from Open to Close.
type Window struct {
	collector net.Conn
	answers   *bufio.Reader
	nonce     uintptr
}

// Open begins to count for the whole process.
func Open() (*Window, error) {
	path := os.Getenv("ZCTRACE_SOCKET")
	if path == "" {
		return nil, errors.New("no collector: sudo zctrace serve -- COMMAND")
	}
	collector, err := net.Dial("unix", path)
	if err != nil {
		return nil, err
	}
	window := &Window{collector: collector, answers: bufio.NewReader(collector)}
	fmt.Fprintf(collector, "{\"protocol\": %d, \"scope\": \"process\"}\n", protocol)
	line, err := window.answers.ReadBytes('\n')
	if err != nil {
		return nil, err
	}
	var answer struct {
		Nonce *uint64
		What  string
	}
	if err := json.Unmarshal(line, &answer); err != nil {
		return nil, err
	}
	if answer.Nonce == nil {
		return nil, errors.New(answer.What)
	}
	window.nonce = uintptr(*answer.Nonce)
	window.mark(1)
	return window, nil
}

// Close ends it, and writes what was counted to a file that zctrace report and compare read.
func (window *Window) Close(result string) error {
	window.mark(2)
	defer window.collector.Close()
	fmt.Fprintln(window.collector, `{"done": true}`)
	evidence, err := window.answers.ReadBytes('\n')
	if err != nil {
		return err
	}
	var answer struct {
		Error, What string
	}
	if err := json.Unmarshal(evidence, &answer); err != nil || answer.Error != "" {
		return errors.Join(err, errors.New(answer.What))
	}
	saved := fmt.Sprintf("{\"evidence\": [%s]}\n", evidence)
	return os.WriteFile(result, []byte(saved), 0o644)
}

func (window *Window) mark(operation uintptr) {
	syscall.RawSyscall6(syscall.SYS_PRCTL, marker, window.nonce, operation, program, process, 0)
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) != 3 {
		return errors.New("usage: window FILE COPY RESULT")
	}
	from, err := os.Open(arguments[0])
	if err != nil {
		return err
	}
	to, err := os.Create(arguments[1])
	if err != nil {
		return err
	}
	window, err := Open()
	if err != nil {
		return err
	}
	// Hidden behind a type of one's own, io.Copy cannot see that both are files.
	_, copied := io.Copy(struct{ io.Writer }{to}, struct{ io.Reader }{from})
	return errors.Join(copied, window.Close(arguments[2]))
}
