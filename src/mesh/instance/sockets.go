package instance

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"iter"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// What the kernel says of the container's sockets (proc_net_tcp in its documentation,
// and proc(5) for those of Unix).

// socket is a TCP socket of the container.
type socket struct {
	local, remote netip.AddrPort
	state         string // in hexadecimal
	unreceived    int    // bytes that were sent
}

// States of a socket (the kernel's tcp_states.h).
const (
	established = "01"
	listening   = "0A"
)

// tcpFiles list the sockets of TCP, those that listen first: over IPv4, and over IPv6
// or both.
var tcpFiles = []string{"/proc/net/tcp", "/proc/net/tcp6"}

// sockets are those that a file lists.
func sockets(file string) iter.Seq[socket] {
	return func(yield func(socket) bool) {
		for line := range lines(file) {
			fields := strings.Fields(line) // number, local and remote address:port, state, sent:received, …
			if len(fields) < 5 {
				continue
			}
			local, remote := addressOf(fields[1]), addressOf(fields[2])
			if !local.IsValid() {
				continue // the heading
			}
			sent, _, _ := strings.Cut(fields[4], ":")
			n, _ := strconv.ParseInt(sent, 16, 64)
			if !yield(socket{local, remote, fields[3], int(n)}) {
				return
			}
		}
	}
}

// lines are those of a file of the kernel's, none where it is not there.
func lines(file string) iter.Seq[string] {
	return func(yield func(string) bool) {
		open, err := os.Open(file)
		if err != nil {
			return // without IPv6 there is no second
		}
		defer open.Close()
		for text := bufio.NewScanner(open); text.Scan(); {
			if !yield(text.Text()) {
				return
			}
		}
	}
}

// addressOf reads an address as the kernel writes it: words in the order of bytes of
// the machine, in hexadecimal, a colon and the port. Of what is none it is invalid.
func addressOf(text string) netip.AddrPort {
	host, port, _ := strings.Cut(text, ":")
	bytes, err := hex.DecodeString(host)
	number, portErr := strconv.ParseUint(port, 16, 16)
	if err != nil || portErr != nil || len(bytes)%4 != 0 {
		return netip.AddrPort{}
	}
	for i := 0; i < len(bytes); i += 4 {
		binary.BigEndian.PutUint32(bytes[i:], binary.NativeEndian.Uint32(bytes[i:]))
	}
	address, ok := netip.AddrFromSlice(bytes)
	if !ok {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(address.Unmap(), uint16(number))
}

// Unreceived is what was sent from a TCP port of this container and has not been
// received yet, in bytes.
func Unreceived(port int) int {
	all := 0
	for _, file := range tcpFiles {
		for s := range sockets(file) {
			if int(s.local.Port()) == port {
				all += s.unreceived
			}
		}
	}
	return all
}

// Callers are the addresses from which somebody is connected to TCP ports of this
// container.
func Callers(ports ...int) map[netip.Addr]bool {
	is, all := map[uint16]bool{}, map[netip.Addr]bool{}
	for _, port := range ports {
		is[uint16(port)] = true
	}
	for _, file := range tcpFiles {
		for s := range sockets(file) {
			if s.state == established && is[s.local.Port()] {
				all[s.remote.Addr()] = true
			}
		}
	}
	return all
}

// Listens says that somebody in this container listens on an address ("tcp"), or on a
// Unix socket ("unix").
func Listens(network, address string) bool {
	if network == "unix" {
		for line := range lines("/proc/net/unix") {
			// Number, users, protocol, flags, type, state, inode, and the path.
			fields := strings.Fields(line)
			const accepts = "00010000" // the flag SO_ACCEPTCON
			if len(fields) == 8 && fields[3] == accepts && fields[7] == address {
				return true
			}
		}
		return false
	}
	wanted, err := netip.ParseAddrPort(address)
	if err != nil {
		return false
	}
	for _, file := range tcpFiles {
		for s := range sockets(file) {
			if s.state != listening {
				break // thousands may be connected
			}
			here := s.local.Addr() == wanted.Addr() || s.local.Addr().IsUnspecified()
			if s.local.Port() == wanted.Port() && here {
				return true
			}
		}
	}
	return false
}
