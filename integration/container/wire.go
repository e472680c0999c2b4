package container

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// message is what the container's creator and its init say to each other: a
// request with its reply under the same ID, or with ID 0 the end of a process.
// Open files travel beside it.
type message struct {
	ID     uint64       `json:",omitempty"`
	Spec   *Spec        `json:",omitempty"`
	Run    *runRequest  `json:",omitempty"`
	Signal *signalOrder `json:",omitempty"`

	Pid   int       `json:",omitempty"`
	Error string    `json:",omitempty"`
	Ended *endEvent `json:",omitempty"`
}

// runRequest starts a process. It comes with three files for input, output and
// error output; with TTY it comes with none and the reply has the terminal's
// master.
type runRequest struct {
	Path string
	Args []string
	Env  []string
	Dir  string
	TTY  bool
}

type signalOrder struct {
	Pid    int
	Signal int
}

type endEvent struct {
	Pid    int
	Status ExitStatus
}

// headerSize is the length prefix of a message. The files travel with it, so
// that the rest can be read as a plain stream of any length: an environment
// may be longer than a datagram.
const headerSize = 4

// maxFiles is how many files one message brings at most.
const maxFiles = 3

func send(conn *net.UnixConn, m message, files ...int) error {
	body, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("failed to encode a message: %w", err)
	}
	packet := binary.BigEndian.AppendUint32(make([]byte, 0, headerSize+len(body)), uint32(len(body)))
	packet = append(packet, body...)
	var rights []byte
	if len(files) > 0 {
		rights = unix.UnixRights(files...)
	}
	n, _, err := conn.WriteMsgUnix(packet, rights, nil)
	if err != nil {
		return err
	}
	_, err = conn.Write(packet[n:])
	return err
}

func receive(conn *net.UnixConn) (m message, files []int, err error) {
	header := make([]byte, headerSize)
	rights := make([]byte, unix.CmsgSpace(maxFiles*4))
	n, rightsLen, _, _, err := conn.ReadMsgUnix(header, rights)
	if err != nil {
		return m, nil, err
	}
	if n == 0 {
		return m, nil, io.EOF
	}
	if _, err := io.ReadFull(conn, header[n:]); err != nil {
		return m, nil, err
	}
	if files, err = parseRights(rights[:rightsLen]); err != nil {
		return m, nil, err
	}
	body := make([]byte, binary.BigEndian.Uint32(header))
	if _, err := io.ReadFull(conn, body); err != nil {
		return m, files, err
	}
	return m, files, json.Unmarshal(body, &m)
}

func parseRights(b []byte) (files []int, err error) {
	if len(b) == 0 {
		return nil, nil
	}
	controls, err := unix.ParseSocketControlMessage(b)
	if err != nil {
		return nil, err
	}
	for _, c := range controls {
		fds, err := unix.ParseUnixRights(&c)
		if err != nil {
			return nil, err
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
		}
		files = append(files, fds...)
	}
	return files, nil
}

// socketPair is one end as a connection and the other as a file for a child.
func socketPair() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	theirs := os.NewFile(uintptr(fds[1]), "init")
	ours, err := unixConn(fds[0])
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return ours, theirs, nil
}

// unixConn takes fd over.
func unixConn(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), "control")
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := conn.(*net.UnixConn)
	if !ok {
		conn.Close()
		return nil, errors.New("not a unix socket")
	}
	return u, nil
}
