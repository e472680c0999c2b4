package wait

import (
	"fmt"
	"io"
	"sync"
)

// Log prints one line for the app's log.
type Log func(format string, args ...any)

// NewLog prints lines that start with "mesh: ", one at a time.
func NewLog(out io.Writer) Log {
	var mutex sync.Mutex
	return func(format string, args ...any) {
		mutex.Lock()
		defer mutex.Unlock()
		// Where the app's log is gone there is nobody to tell.
		_, _ = fmt.Fprintf(out, "mesh: "+format+"\n", args...)
	}
}
