package crowd

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
)

// Usage is what the servers take of the machine.
type Usage struct {
	Processor   time.Duration // of all, since their start
	Memory      int           // resident, of the largest, in bytes
	Connections int           // to the HTTP API, of all
	Streams     int           // connections to the gRPC port, of all
}

// Usage is that of now.
func (s *Servers) Usage() (u Usage, err error) {
	for i, process := range s.processes {
		used, err := processorTime(process.Process.Pid)
		if err != nil {
			return u, err
		}
		memory, err := resident(process.Process.Pid)
		if err != nil {
			return u, err
		}
		u.Processor += used
		u.Memory = max(u.Memory, memory)
		address := netip.MustParseAddr(s.address(i))
		table, err := os.ReadFile("/proc/net/tcp")
		if err != nil {
			return u, err
		}
		u.Connections += established(table, address, HTTPPort)
		u.Streams += established(table, address, GRPCPort)
	}
	return u, nil
}

// tick is the unit of proc_pid_stat(5), on Linux for amd64.
const tick = time.Second / 100

// processorTime is what a process has taken.
func processorTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, after, _ := bytes.Cut(text, []byte(") ")) // its name
	fields := strings.Fields(string(after))
	const user, system = 11, 12
	if len(fields) <= system {
		return 0, fmt.Errorf("/proc/%d/stat is %q", pid, text)
	}
	inUser, err := strconv.Atoi(fields[user])
	if err != nil {
		return 0, err
	}
	inSystem, err := strconv.Atoi(fields[system])
	return time.Duration(inUser+inSystem) * tick, err
}

// resident is the memory of a process, in bytes.
func resident(pid int) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0, fmt.Errorf("/proc/%d/statm is %q", pid, text)
	}
	pages, err := strconv.Atoi(fields[1])
	return pages * os.Getpagesize(), err
}

// established counts the open connections to an address in the kernel's table of
// sockets (proc_pid_net(5)).
func established(table []byte, address netip.Addr, port int) (n int) {
	bytes := address.As4()
	local := fmt.Sprintf("%08X:%04X", binary.LittleEndian.Uint32(bytes[:]), port)
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		const open = "01"
		if len(fields) > 3 && fields[1] == local && fields[3] == open {
			n++
		}
	}
	return n
}
