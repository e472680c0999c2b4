package envoy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// What Envoy says of its configuration, in its admin API and in its log.

// rejected is Envoy's own reason for not taking a configuration.
func (e *Envoy) rejected(ctx context.Context) error {
	for _, resource := range []string{"dynamic_listeners", "dynamic_active_clusters"} {
		text, err := e.get(ctx, "/config_dump?resource="+resource)
		if err != nil {
			return err
		}
		var dump struct {
			Configs []struct {
				ErrorState struct {
					Details string `json:"details"`
				} `json:"error_state"`
			} `json:"configs"`
		}
		if err := json.Unmarshal([]byte(text), &dump); err != nil {
			return err
		}
		for _, config := range dump.Configs {
			if config.ErrorState.Details != "" {
				return errors.New(withoutDump(config.ErrorState.Details))
			}
		}
	}
	if why := lastRejection(e.warnings()); why != "" {
		return errors.New(why) // clusters that were refused are in no dump
	}
	return errors.New("it does not say why")
}

// warnings are what Envoy has warned of, oldest first.
func (e *Envoy) warnings() []string {
	if e.journal == nil {
		return nil
	}
	return e.journal()
}

// lastRejection is the reason of the last configuration that was refused, empty where
// none was. The reason may come lines later, after the whole of what was refused.
func lastRejection(lines []string) string {
	for i, line := range slices.Backward(lines) {
		if _, why, found := strings.Cut(line, " rejected: "); found {
			end := i + 1
			for end < len(lines) && (strings.HasPrefix(lines[end], ": ") || strings.HasPrefix(lines[end], dumpedName)) {
				end++
			}
			return withoutDump(strings.Join(append([]string{why}, lines[i+1:end]...), "\n"))
		}
	}
	return ""
}

// dumpedName begins the line with the name of what was refused.
const dumpedName = "name: "

// withoutDump leaves the refused message out of a reason, all but its name: its lines
// stand between the first and those that begin with a colon.
func withoutDump(reason string) string {
	var kept strings.Builder
	for i, line := range strings.Split(reason, "\n") {
		line = strings.TrimSpace(strings.ReplaceAll(line, "goo.gle/debugonly", "")) // protobuf's mark of a dump
		switch {
		case i == 0 || strings.HasPrefix(line, ": "):
			kept.WriteString(strings.TrimSuffix(line, ":"))
		case i == 1 && strings.HasPrefix(line, dumpedName):
			kept.WriteString(": " + strings.TrimPrefix(line, dumpedName))
		}
	}
	return strings.TrimPrefix(kept.String(), ": ")
}

// closedStream matches what Envoy says of the end of a stream: gRPC's code and message.
var closedStream = regexp.MustCompile(`gRPC config stream (?:to \S+ )?closed(?: since \d+s ago)?: (\d+), (.*)`)

// codes are gRPC's, by their numbers (gRPC: statuscodes).
var codes = []string{
	"OK", "Cancelled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists", "PermissionDenied",
	"ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented", "Internal", "Unavailable",
	"DataLoss", "Unauthenticated",
}

// refusals are the codes with which a server says that it does not like what it is
// asked, and not that it cannot answer now.
var refusals = []string{"InvalidArgument", "PermissionDenied", "FailedPrecondition", "Unimplemented", "Unauthenticated"}

// lastClosed says how the last stream ended, empty where none has, and whether the
// other side refused it.
func lastClosed(lines []string) (said string, refused bool) {
	for _, line := range slices.Backward(lines) {
		match := closedStream.FindStringSubmatch(line)
		if match == nil {
			continue
		}
		name := "unknown"
		if n, err := strconv.Atoi(match[1]); err == nil && n < len(codes) {
			name = codes[n]
		}
		return fmt.Sprintf("it was closed with gRPC's code %s (%s): %s", match[1], name, match[2]), slices.Contains(refusals, name)
	}
	return "", false
}
