package wait

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"
)

// DialTimeout is for one connection that is tried to find a cause. Where a
// network policy is missing it is refused at once, or never answered.
const DialTimeout = time.Second

// Dial returns nil where somebody listens at a target, HOST:PORT.
func Dial(ctx context.Context, target string) error {
	dialer := net.Dialer{Timeout: DialTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", target)
	switch {
	case err == nil:
		return conn.Close()
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%s refuses the connection", target)
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s does not answer", target)
	}
	return err
}

// DialAny returns nil as soon as one of the addresses can be reached.
func DialAny(ctx context.Context, addresses []string, port int) (failed error) {
	ctx, cancel := context.WithTimeout(ctx, 2*DialTimeout)
	defer cancel()
	dialled := make(chan error, len(addresses))
	for _, host := range addresses {
		go func() { dialled <- Dial(ctx, net.JoinHostPort(host, strconv.Itoa(port))) }()
	}
	for range addresses {
		if failed = <-dialled; failed == nil {
			return nil
		}
	}
	return failed
}

// Pause waits, unless ctx ends.
func Pause(ctx context.Context, long time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(long):
		return nil
	}
}

// Loopback is an address of the container alone.
func Loopback(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }
