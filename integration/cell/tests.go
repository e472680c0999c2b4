package cell

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
)

// MainTests is Main for the tests of a package: there are several second halves,
// side by side, each with a cell of its own, and whichever is free makes the next
// test. run makes what all tests share, and then the tests.
//
//	func TestMain(m *testing.M) { cell.MainTests(m, 4, prepare, run) }
//
// Tests that were chosen with -run are made by one half, as usual.
func MainTests(m interface{ Run() int }, cells int, prepare func() error, run func(tests func() int) int) {
	o := MainOptions{Prepare: prepare, Run: func() int { return run(m.Run) }}
	flag.Parse()
	if chosen("run") || chosen("list") || chosen("bench") || chosen("fuzz") {
		MainWith(o)
	}
	o.Run = func() int { return run(func() int { return inTurn(m) }) }
	if _, isInside := os.LookupEnv(insideEnv); isInside {
		syscall.CloseOnExec(firstListener) // containers do not inherit the queue either
		MainWith(o)
	}
	var err error
	if o.tests, err = queue(m); err != nil {
		fmt.Fprintln(os.Stderr, "failed to list the tests:", err)
		os.Exit(1)
	}
	o.cells = cells
	MainWith(o)
}

// testFlag is one of those that go test gives to its program.
func testFlag(name string) flag.Value { return flag.Lookup("test." + name).Value }

func chosen(name string) bool { return testFlag(name).String() != "" }

// nameSize is what each test takes up in the queue.
const nameSize = 128

// queue is a file that has the names of all tests. Those who inherit it open have
// one place in it between them: what one has read, no other reads.
func queue(m interface{ Run() int }) (*os.File, error) {
	names, err := testNames(m)
	if err != nil {
		return nil, err
	}
	file, err := os.CreateTemp("", "tests")
	if err != nil {
		return nil, err
	}
	for name := range strings.Lines(names) {
		if _, err := fmt.Fprintf(file, "%-*s", nameSize, strings.TrimSpace(name)); err != nil {
			return nil, err
		}
	}
	_, err = file.Seek(0, io.SeekStart)
	return file, errors.Join(err, os.Remove(file.Name()))
}

// testNames has the package's tests list themselves, which they do on the standard
// output.
func testNames(m interface{ Run() int }) (string, error) {
	reader, writer, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer reader.Close()
	stdout := os.Stdout
	os.Stdout = writer
	_ = testFlag("list").Set("^Test")
	m.Run()
	os.Stdout = stdout
	writer.Close()
	names, err := io.ReadAll(reader)
	return string(names), err
}

// inTurn makes one test after the other that is left in the queue.
func inTurn(m interface{ Run() int }) (status int) {
	tests := os.NewFile(firstListener, "tests")
	for {
		name := make([]byte, nameSize)
		if _, err := io.ReadFull(tests, name); err == io.EOF {
			return status
		} else if err != nil {
			fmt.Fprintln(os.Stderr, "failed to take a test:", err)
			return 1
		}
		_ = testFlag("run").Set("^" + strings.TrimSpace(string(name)) + "$")
		status = max(status, m.Run())
	}
}

// blocks passes on what one of several processes prints, each time all of a test.
type blocks struct {
	out   io.Writer
	mutex *sync.Mutex // shared by all processes
	held  bytes.Buffer
}

func (b *blocks) Write(text []byte) (int, error) {
	b.held.Write(text)
	if bytes.HasSuffix(text, []byte("PASS\n")) || bytes.HasSuffix(text, []byte("FAIL\n")) {
		b.flush()
	}
	return len(text), nil
}

func (b *blocks) flush() {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	_, _ = b.held.WriteTo(b.out)
}
