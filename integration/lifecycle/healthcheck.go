package main

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"
)

// healthcheck tells by its exit code whether the app answers:
// healthcheck -port PORT [-uri PATH]. It asks at the container's own address,
// as everybody outside does, and never at loopback.
func healthcheck(args []string) int {
	flags := flag.NewFlagSet("healthcheck", flag.ContinueOnError)
	port := flags.Int("port", 8080, "TCP port that has to accept connections")
	uri := flags.String("uri", "", "path that has to answer 200")
	timeout := flags.Duration("timeout", time.Second, "how long it may take")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if err := check(*port, *uri, *timeout); err != nil {
		fmt.Fprintln(os.Stderr, "Failed to make connection:", err)
		return 1
	}
	return 0
}

func check(port int, uri string, timeout time.Duration) error {
	ip, err := ownAddress()
	if err != nil {
		return err
	}
	address := net.JoinHostPort(ip, strconv.Itoa(port))
	if uri != "" {
		return checkHTTP("http://"+address+uri, timeout)
	}
	conn, err := net.DialTimeout("tcp", address, timeout)
	if err != nil {
		return err
	}
	return conn.Close()
}

func checkHTTP(url string, timeout time.Duration) error {
	client := http.Client{Timeout: timeout}
	r, err := client.Get(url)
	if err != nil {
		return err
	}
	r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", url, r.Status)
	}
	return nil
}

// ownAddress is the first IPv4 address that is not loopback.
func ownAddress() (string, error) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return "", err
	}
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && n.IP.To4() != nil {
			return n.IP.String(), nil
		}
	}
	return "", errors.New("the container has no address")
}
