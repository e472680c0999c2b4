package wait

import (
	"bytes"
	"encoding/binary"

	"google.golang.org/protobuf/encoding/protowire"
)

// GRPCFrame is a message as gRPC sends it, not compressed.
func GRPCFrame(message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
}

// ProtoMessage appends a field that consists of others.
func ProtoMessage(to []byte, field protowire.Number, parts ...[]byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(to, field, protowire.BytesType), bytes.Join(parts, nil))
}

// ProtoText appends a field of text.
func ProtoText(to []byte, field protowire.Number, value string) []byte {
	return ProtoMessage(to, field, []byte(value))
}
