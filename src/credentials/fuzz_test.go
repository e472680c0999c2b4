package credentials

import (
	"strings"
	"testing"
)

// FuzzRead: whatever a binding says, there are credentials or an error with a reason,
// and what may be a secret is in no error.
func FuzzRead(f *testing.F) {
	for _, text := range []string{
		`{"consul":[{"name":"b","label":"consul","credentials":{"token":"` + canary + `","ca":"x","addresses":["a"],"default_policy":"deny"}}]}`,
		`{"user-provided":[{"name":"b","tags":["consul"],"credentials":{"token":7,"retry_join":"a","jwt":"` + canary + `","auth_method":"m"}}]}`,
		`{"a":[null,{"tags":null,"credentials":{"credhub-ref":"/x"}}]}`, `{"a":{}}`, `[]`, ``, "\xff",
	} {
		f.Add(text, "")
		f.Add(text, "b")
	}
	f.Fuzz(func(t *testing.T, text, name string) {
		_, unknown, err := Read(environment(map[string]string{envServices: text}), name)
		if err != nil && err.Error() == "" {
			t.Error("an error without a reason")
		}
		if strings.Contains(name, canary) {
			return
		}
		said := strings.Join(unknown, " ")
		if err != nil {
			said += err.Error()
		}
		// As a value it is a secret; a key or a name may be shown.
		if strings.Contains(said, canary) && strings.Count(text, canary) == strings.Count(text, `":"`+canary+`"`) && !strings.Contains(text, `"name":"`+canary) {
			t.Errorf("a secret is in %q", said)
		}
	})
}
