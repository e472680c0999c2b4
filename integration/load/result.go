package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Result is what was counted.
type Result struct {
	Sent, Lost int
	// FirstLoss and LastLoss are when the first and the last request was due
	// that was lost. Zero where none was.
	FirstLoss, LastLoss time.Time
	// Reasons counts the lost requests by why.
	Reasons map[string]int
	// Of the requests that were answered, from when they were due.
	Median, P99, Max time.Duration
}

// String says it in one line.
func (r Result) String() string {
	text := fmt.Sprintf("%d sent, %d lost, answers after %.1f ms (median), %.1f ms (99 %%), %.1f ms (at most)",
		r.Sent, r.Lost, ms(r.Median), ms(r.P99), ms(r.Max))
	if r.Lost > 0 {
		text += fmt.Sprintf("; lost over %.2f s", r.LastLoss.Sub(r.FirstLoss).Seconds())
	}
	for _, reason := range slices.Sorted(maps.Keys(r.Reasons)) {
		text += fmt.Sprintf("; %d × %s", r.Reasons[reason], reason)
	}
	return text
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// record collects while requests come back, in any order.
type record struct {
	answers []time.Duration
	losses  []time.Time
	reasons map[string]int
}

func (r *record) add(due time.Time, took time.Duration, err error) {
	if err == nil {
		r.answers = append(r.answers, took)
		return
	}
	r.losses = append(r.losses, due)
	if r.reasons == nil {
		r.reasons = map[string]int{}
	}
	r.reasons[reason(err)]++
}

func (r *record) result() Result {
	result := Result{Sent: len(r.answers) + len(r.losses), Lost: len(r.losses), Reasons: r.reasons}
	if result.Lost > 0 {
		result.FirstLoss = slices.MinFunc(r.losses, time.Time.Compare)
		result.LastLoss = slices.MaxFunc(r.losses, time.Time.Compare)
	}
	slices.Sort(r.answers)
	if n := len(r.answers); n > 0 {
		result.Median, result.P99, result.Max = r.answers[n/2], r.answers[n*99/100], r.answers[n-1]
	}
	return result
}

// reason is what an error says without what differs from request to request.
func reason(err error) string {
	var timeout net.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "connection reset"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "connection closed"
	}
	text, _, _ := strings.Cut(err.Error(), "\n")
	return text
}
