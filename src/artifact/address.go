package artifact

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/hashicorp/go-getter/v2"
)

// address says where an artifact comes from.
type address struct {
	path   string   // of a local file
	url    *url.URL // otherwise
	git    bool
	ref    string // of a git repository: a commit, tag or branch
	inside string // the path of the file in the repository or archive, "" for the default
}

func (from address) local() bool { return from.url == nil }

// archived is the path in an archive, where the address gives one.
func (from address) archived() string {
	if from.git {
		return ""
	}
	return from.inside
}

// String is an address without what may be a credential in it.
func (from address) String() string {
	if from.local() {
		return from.path
	}
	short := *from.url
	short.User, short.RawQuery, short.Fragment = nil, "", ""
	text := redact(short.String()) // a password with a / makes the rest of it a path
	if from.git {
		text = "git::" + text
	}
	if from.inside != "" {
		text += "//" + from.inside
	}
	return text
}

// validRef keeps a ref from being an option or a refspec of git's.
var validRef = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_./@+-]*$`)

// parseAddress reads an address in go-getter's words:
//
//	/path/of/a/file
//	/path/of/a/zip//path/in/the/archive
//	https://host/envoy
//	https://host/consul.zip//path/in/the/archive
//	git::https://host/repository//path/in/it?ref=v1
//
// What follows the second // is the path of the program; by default it is the file
// of the program's name at the top. No error repeats the address, which may have credentials in it.
func parseAddress(uri string) (from address, err error) {
	if !strings.Contains(uri, "://") {
		from.path, from.inside, _ = strings.Cut(uri, "//")
		return from, nil
	}
	forced, rest, found := strings.Cut(uri, "::")
	switch {
	case !found || strings.Contains(forced, "/"):
		rest = uri
	case forced == "git":
		from.git = true
	default:
		return from, fmt.Errorf("there is no way to fetch %q addresses\nhint: an S3 bucket has https addresses too", forced)
	}
	rest, from.inside = getter.SourceDirSubdir(rest)
	from.url, err = url.Parse(rest)
	if err != nil || from.url.Host == "" {
		return from, errors.New("its address is no URL")
	}
	if scheme := from.url.Scheme; scheme != "https" && scheme != "http" {
		return from, fmt.Errorf("there is no way to fetch %q addresses", scheme)
	}
	if from.inside != "" && !filepath.IsLocal(from.inside) {
		return from, fmt.Errorf("%q, after the // of its address, points outside", from.inside)
	}
	if !from.git {
		return from, nil
	}
	query := from.url.Query()
	if from.ref = query.Get("ref"); from.ref == "" {
		from.ref = "HEAD"
	}
	if !validRef.MatchString(from.ref) {
		return from, fmt.Errorf("%q is no commit, tag or branch", from.ref)
	}
	if query.Del("ref"); len(query) > 0 {
		return from, errors.New("the address of a git repository takes ref after its ?, and nothing else")
	}
	from.url.RawQuery = ""
	return from, nil
}

var (
	userinfo = regexp.MustCompile(`://[^\s"']*@`) // passwords may have a / or @
	query    = regexp.MustCompile(`(://[^?\s"']*)\?[^\s"']*`)
)

// redact takes what may be credentials out of the addresses in a text.
func redact(text string) string {
	return query.ReplaceAllString(userinfo.ReplaceAllString(text, "://"), "$1")
}
