package credentials

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// binding is one bound service, however the platform hands it over.
type binding struct {
	Name        string         `json:"name"`
	Instance    string         `json:"instance_name"`
	Label       string         `json:"label"`
	Tags        []string       `json:"tags"`
	Credentials map[string]any `json:"credentials"`

	// from is the variable that has led to it.
	from string
}

// Where the platform says which services are bound.
const (
	envServices = "VCAP_SERVICES"
	envFile     = "VCAP_SERVICES_FILE_PATH"
	envRoot     = "SERVICE_BINDING_ROOT"
)

// envSystem has the folder of the certificates that the platform's operators trust, a
// file in PEM each.
const envSystem = "CF_SYSTEM_CERT_PATH"

// maxSource bounds what is read: Cloud Foundry allows a megabyte in files.
const maxSource = 4 << 20

// bindings lists the bound services. The platform uses one way at a time; if
// there are more, the first that has a service counts.
func bindings(getenv func(string) string) ([]*binding, error) {
	if text := getenv(envServices); text != "" {
		all, err := parseServices(envServices, []byte(text))
		if len(all) > 0 || err != nil {
			return all, err
		}
	}
	if path := getenv(envFile); path != "" {
		text, err := readFile(path)
		if err != nil {
			return nil, fmt.Errorf("failed to read %s: %w", envFile, err)
		}
		all, err := parseServices(envFile, text)
		if len(all) > 0 || err != nil {
			return all, err
		}
	}
	if root := getenv(envRoot); root != "" {
		return readRoot(root)
	}
	return nil, nil
}

func parseServices(source string, text []byte) (all []*binding, err error) {
	var byLabel map[string][]*binding
	if err := json.Unmarshal(text, &byLabel); err != nil {
		// What json says may quote a part of the text.
		return nil, fmt.Errorf("failed to read %s: it is not the JSON of Cloud Foundry's service bindings", source)
	}
	for label, services := range byLabel {
		for _, b := range services {
			if b == nil {
				continue
			}
			if b.Label == "" {
				b.Label = label
			}
			b.from = source
			all = append(all, b)
		}
	}
	return all, nil
}

// readRoot reads the folders of servicebinding.io: one for each binding, with a file
// for each key. What else Cloud Foundry knows of a binding it adds as files of the
// names that readBinding lists (cloud_controller_ng, ServiceBindingFilesBuilder).
func readRoot(root string) ([]*binding, error) {
	entries, err := os.ReadDir(root)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // the platform sets the variable, and nothing is bound
	}
	if err != nil {
		return nil, fmt.Errorf("failed to read %s: %w", envRoot, err)
	}
	var all []*binding
	for _, entry := range entries {
		dir := filepath.Join(root, entry.Name())
		if info, err := os.Stat(dir); err != nil || !info.IsDir() || hidden(entry.Name()) {
			continue
		}
		b, err := readBinding(dir)
		if err != nil {
			return nil, fmt.Errorf("failed to read the binding %s: %w", shown(entry.Name()), err)
		}
		if b.Name == "" {
			b.Name = entry.Name()
		}
		all = append(all, b)
	}
	return all, nil
}

func readBinding(dir string) (*binding, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	b := &binding{Credentials: map[string]any{}, from: envRoot}
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		if info, err := os.Stat(path); err != nil || info.IsDir() || hidden(entry.Name()) {
			continue
		}
		text, err := readFile(path)
		if err != nil {
			return nil, err
		}
		value := strings.TrimRight(string(text), "\r\n")
		// The platform's own files have dashes in their names, or since September 2025
		// underscores; those of keys have what the key has, or dashes.
		switch key := strings.ReplaceAll(entry.Name(), "-", "_"); key {
		case "name":
			b.Name = value
		case "instance_name":
			b.Instance = value
		case "type", "label":
			b.Label = value
		case "tags":
			b.Tags = list(value)
		case "provider", "plan", "binding_guid", "binding_name", "instance_guid", "syslog_drain_url", "volume_mounts":
			// Not about Consul.
		case strings.ReplaceAll(keyCredHub, "-", "_"):
			b.Credentials[keyCredHub] = value
		default:
			b.Credentials[key] = value
		}
	}
	return b, nil
}

// hidden says that a name is one of those with which Kubernetes exchanges all files
// at once.
func hidden(name string) bool { return strings.HasPrefix(name, ".") }

func readFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxSource+1))
	if err == nil && len(text) > maxSource {
		err = fmt.Errorf("%s has more than %d bytes", path, maxSource)
	}
	return text, err
}

// readSystem reads the certificates of authorities in a folder, as PEM. What is not one
// is left out: the folder is not the binding's.
func readSystem(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", fmt.Errorf("failed to read %s: %w", envSystem, err)
	}
	var all strings.Builder
	for _, entry := range entries {
		text, err := readFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			continue
		}
		if authorities, err := bundle(text); err == nil {
			all.WriteString(authorities)
		}
	}
	if all.Len() == 0 {
		return "", fmt.Errorf("%s has none", envSystem)
	}
	return all.String(), nil
}

// list takes a JSON array, or words with commas or spaces between them.
func list(text string) []string {
	var all []string
	if json.Unmarshal([]byte(text), &all) == nil {
		return all
	}
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' || r == '\t' || r == '\r' })
}
