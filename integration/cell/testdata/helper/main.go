// Command helper is what the tests' apps run.
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	addr := flag.String("addr", ":8080", "TCP address to serve HTTP at")
	udp := flag.String("udp", "", "UDP address to echo at")
	tcp := flag.String("tcp", "", "TCP address to say the index and then echo at")
	stubborn := flag.Bool("stubborn", false, "do not end on SIGTERM")
	flag.Parse()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	go func() {
		for range signals {
			fmt.Println("got SIGTERM")
			if !*stubborn {
				os.Exit(0)
			}
		}
	}()
	if *udp != "" {
		go echo(*udp)
	}
	if *tcp != "" {
		go echoTCP(*tcp)
	}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s\n", os.Getenv("CF_INSTANCE_INDEX"), os.Getenv("CF_INSTANCE_GUID"))
	})
	// It is well while there is no such file in its tmp.
	http.HandleFunc("/well", func(w http.ResponseWriter, r *http.Request) {
		if _, err := os.Stat("/home/vcap/tmp/" + r.FormValue("file")); err == nil {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	http.HandleFunc("/remote", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, r.RemoteAddr) })
	fmt.Println("serving at", *addr)
	log.Fatal(http.ListenAndServe(*addr, nil))
}

func echo(addr string) {
	c, err := net.ListenPacket("udp", addr)
	if err != nil {
		log.Fatal(err)
	}
	b := make([]byte, 1500)
	for {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			log.Fatal(err)
		}
		if _, err := c.WriteTo(b[:n], from); err != nil {
			log.Fatal(err)
		}
	}
}

// echoTCP goes on to answer when its caller has said all.
func echoTCP(addr string) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		log.Fatal(err)
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go func() {
			defer conn.Close()
			fmt.Fprintln(conn, os.Getenv("CF_INSTANCE_INDEX"))
			_, _ = io.Copy(conn, conn)
			fmt.Fprintln(conn, "bye")
		}()
	}
}
