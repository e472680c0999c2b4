package container

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
)

// routines take the place of the functions that the kernel maps into every
// process to tell the time without a system call. They make the call and add
// 32 bits of seconds, which are the zeros after the marked bytes, to the time of
// day; every other clock they leave alone. Registers are those of amd64's C
// calling convention, which Go keeps to here as well.
var routines = []struct {
	symbol string
	code   []byte
	add    int // where the seconds are
}{
	{"__vdso_clock_gettime", []byte{
		0xb8, 0xe4, 0, 0, 0, // mov eax, SYS_clock_gettime
		0x0f, 0x05, // syscall
		0x85, 0xc0, // test eax, eax
		0x75, 16, // jnz end
		0x85, 0xff, // test edi, edi: CLOCK_REALTIME
		0x74, 5, // jz add
		0x83, 0xff, 5, // cmp edi, CLOCK_REALTIME_COARSE
		0x75, 7, // jne end
		0x48, 0x81, 0x06, 0, 0, 0, 0, // add: add qword [rsi], seconds
		0xc3, // end: ret
	}, 23},
	{"__vdso_gettimeofday", []byte{
		0xb8, 0x60, 0, 0, 0, // mov eax, SYS_gettimeofday
		0x0f, 0x05, // syscall
		0x85, 0xc0, // test eax, eax
		0x75, 12, // jnz end
		0x48, 0x85, 0xff, // test rdi, rdi: the caller may want the time zone only
		0x74, 7, // jz end
		0x48, 0x81, 0x07, 0, 0, 0, 0, // add qword [rdi], seconds
		0xc3, // end: ret
	}, 19},
	{"__vdso_time", []byte{
		0xb8, 0xc9, 0, 0, 0, // mov eax, SYS_time
		0x0f, 0x05, // syscall
		0x48, 0x05, 0, 0, 0, 0, // add rax, seconds
		0x48, 0x85, 0xff, // test rdi, rdi
		0x74, 3, // jz end
		0x48, 0x89, 0x07, // mov [rdi], rax
		0xc3, // end: ret
	}, 9},
}

// room is what the routines get at the end of the mapping, and jump the length
// of the instruction that leads to one.
const (
	room = 128
	jump = 5
)

// vdso is what the kernel has mapped into one process, its own copy as soon as
// something is written there.
type vdso struct {
	pid     int
	start   uint64            // of the mapping
	size    uint64            // of the mapping
	entries map[string]uint64 // symbol → address of the function
}

// findVDSO reads about a process that exists; os.ErrNotExist says that it has
// none, as one that has just ended.
func findVDSO(pid int) (v vdso, err error) {
	v = vdso{pid: pid, entries: map[string]uint64{}}
	if v.start, v.size, err = v.mapping(); err != nil {
		return v, err
	}
	image := make([]byte, v.size)
	if err := v.access(func(mem *os.File) error {
		_, err := mem.ReadAt(image, int64(v.start))
		return err
	}); err != nil {
		return v, err
	}
	var header elf.Header64
	if _, err := binary.Decode(image, binary.LittleEndian, &header); err != nil {
		return v, err
	}
	// The section headers are the last thing in the file.
	if end := header.Shoff + uint64(header.Shnum)*uint64(header.Shentsize); end+room > v.size {
		return v, fmt.Errorf("the kernel's vDSO leaves %d bytes free, %d are needed", int64(v.size)-int64(end), room)
	}
	file, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return v, err
	}
	symbols, err := file.DynamicSymbols()
	if err != nil {
		return v, err
	}
	for _, symbol := range symbols {
		if symbol.Size >= jump {
			v.entries[symbol.Name] = v.start + symbol.Value
		}
	}
	return v, nil
}

func (v vdso) mapping() (start, size uint64, err error) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", v.pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(maps)) {
		if !strings.HasSuffix(line, "[vdso]\n") {
			continue
		}
		var end uint64
		_, err := fmt.Sscanf(line, "%x-%x", &start, &end)
		return start, end - start, err
	}
	return 0, 0, fmt.Errorf("process %d has no vDSO: %w", v.pid, os.ErrNotExist)
}

func (v vdso) access(do func(mem *os.File) error) error {
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", v.pid), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(do(mem), mem.Close())
}

// set has the process see a time of day so many seconds ahead. No thread of it
// may run meanwhile, nor be where a jump is written. One that is further on in a
// function that is replaced finishes it: nothing else of it changes.
func (v vdso) set(seconds int32) error {
	return v.access(func(mem *os.File) error {
		at := v.start + v.size - room
		for _, routine := range routines {
			entry, found := v.entries[routine.symbol]
			if !found {
				return fmt.Errorf("the kernel's vDSO has no %s that could be replaced", routine.symbol)
			}
			code := bytes.Clone(routine.code)
			binary.LittleEndian.PutUint32(code[routine.add:], uint32(seconds))
			if _, err := mem.WriteAt(code, int64(at)); err != nil {
				return err
			}
			lead := binary.LittleEndian.AppendUint32([]byte{0xe9}, uint32(at-entry-jump))
			if _, err := mem.WriteAt(lead, int64(entry)); err != nil {
				return err
			}
			at += uint64(len(code))
		}
		return nil
	})
}

// overwrites tells whether a thread whose next instruction is at pc would find
// a part of a jump there.
func (v vdso) overwrites(pc uint64) bool {
	for _, routine := range routines {
		if entry := v.entries[routine.symbol]; pc > entry && pc < entry+jump {
			return true
		}
	}
	return false
}
