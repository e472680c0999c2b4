package artifact

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestFetch: what servers do, how often they are asked, and what is said.
func TestFetch(t *testing.T) {
	t.Parallel()
	refuse := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }
	}
	// half announces the whole, gives half of it, and hangs up.
	half := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(program)))
		w.Write(program[:len(program)/2])
		panic(http.ErrAbortHandler)
	}
	stall := func(w http.ResponseWriter, r *http.Request) {
		w.Write(program[:len(program)/2])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
	for name, test := range map[string]struct {
		answers  []http.HandlerFunc // the last one again and again
		requests int
		says     []string // none where it is installed
	}{
		"it is there":        {[]http.HandlerFunc{give(program)}, 1, nil},
		"not there":          {[]http.HandlerFunc{refuse(404)}, 1, []string{"/consul: the server says 404 Not Found\nhint: is the address right"}},
		"not allowed":        {[]http.HandlerFunc{refuse(403)}, 1, []string{"403 Forbidden\nhint: is the address right, and does it need credentials?"}},
		"out of order":       {[]http.HandlerFunc{refuse(503)}, 3, []string{"in 3 attempts: the server says 503 Service Unavailable\nhint: staging must reach 127.0.0.1"}},
		"in order again":     {[]http.HandlerFunc{refuse(502), refuse(429), give(program)}, 3, nil},
		"truncated":          {[]http.HandlerFunc{half}, 3, []string{"in 3 attempts: unexpected EOF\nhint: staging must reach"}},
		"truncated once":     {[]http.HandlerFunc{half, give(program)}, 2, nil},
		"stalled":            {[]http.HandlerFunc{stall}, 3, []string{"in 3 attempts: nothing received for 1s\nhint: staging must reach"}},
		"stalled once":       {[]http.HandlerFunc{stall, give(program)}, 2, nil},
		"no answer":          {[]http.HandlerFunc{func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }}, 3, []string{"nothing received for 1s"}},
		"another file":       {[]http.HandlerFunc{give([]byte("another"))}, 1, []string{"its checksum is " + sumOf([]byte("another")) + " and should be " + sumOf(program), "hint: what is there is not what the checksum was made of", "nothing of it was run"}},
		"a web page":         {[]http.HandlerFunc{give([]byte("<!DOCTYPE html>\n<html><title>Log in</title>"))}, 1, []string{"its checksum is", "hint: what the address gives is a web page"}},
		"nothing":            {[]http.HandlerFunc{give(nil)}, 1, []string{"its checksum is " + sumOf(nil)}},
		"redirected":         {[]http.HandlerFunc{func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/there", http.StatusFound) }, give(program)}, 2, nil},
		"redirected forever": {[]http.HandlerFunc{func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/again", http.StatusFound) }}, 10, []string{"the server redirects without an end"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked := make(chan http.HandlerFunc, len(test.answers))
			for _, answer := range test.answers {
				asked <- answer
			}
			last := test.answers[len(test.answers)-1]
			address, requests := serve(t, func(w http.ResponseWriter, r *http.Request) {
				select {
				case answer := <-asked:
					answer(w, r)
				default:
					last(w, r)
				}
			})
			s := newShelf(t)
			if strings.Contains(name, "stalled") || name == "no answer" {
				s.Stall = time.Second
			}
			if a := consul(address+"/consul", program); test.says == nil {
				s.installs(a)
			} else {
				s.refuses(a, test.says...)
			}
			if requests() != test.requests {
				t.Errorf("%d requests, want %d", requests(), test.requests)
			}
		})
	}
}

// TestASlowDownloadIsNoStall: what moves is waited for, however slowly.
func TestASlowDownloadIsNoStall(t *testing.T) {
	t.Parallel()
	address, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		for part := range 10 {
			w.Write(program[part*len(program)/10 : (part+1)*len(program)/10])
			w.(http.Flusher).Flush()
			time.Sleep(400 * time.Millisecond)
		}
	})
	s := newShelf(t)
	s.Stall = 3 * time.Second
	s.installs(consul(address+"/consul", program))
}

// TestTheChecksumIsOfTheFile: not of what a client would make of an archive
// that a server calls compressed.
func TestTheChecksumIsOfTheFile(t *testing.T) {
	t.Parallel()
	archive := tarOf(t, entry{name: "consul", content: program})
	address, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		w.Write(archive)
	})
	newShelf(t).installs(consul(address+"/consul.tar.gz", archive))
}

// TestNoChecksum: nothing is run without one, nor is it taken for a path.
func TestNoChecksum(t *testing.T) {
	t.Parallel()
	address, requests := serve(t, give(program))
	for _, sum := range []string{"", "../..", sumOf(program)[1:], strings.ToUpper(sumOf(program))} {
		newShelf(t).refuses(Artifact{Name: "consul", URI: address + "/consul", SHA256: sum}, "is no SHA-256\nhint: it has 64 hexadecimal digits")
	}
	if requests() != 0 {
		t.Errorf("%d requests", requests())
	}
}

// TestWhoEndsAStaging: is not told about servers, and nothing is tried again.
func TestWhoEndsAStaging(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	address, requests := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	})
	s := newShelf(t)
	err := s.Install(ctx, s.bin, consul(address+"/consul", program))
	if !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "hint:") || requests() != 1 {
		t.Errorf("%d requests, %v", requests(), err)
	}
	s.tidy()
	if left := tree(t, s.Dir); len(left) != 1 {
		t.Errorf("the cache has %q", left)
	}
}

// TestADownloadHasAnEnd: a server that never stops sending fills no disk.
func TestADownloadHasAnEnd(t *testing.T) {
	t.Parallel()
	n, err := io.Copy(io.Discard, limited(endless{}))
	if n != sizeLimit || !errors.Is(err, errTooMuch) {
		t.Errorf("read %d bytes, then %v", n, err)
	}
	if n, err := io.Copy(io.Discard, limited(strings.NewReader("short"))); n != 5 || err != nil {
		t.Errorf("read %d bytes of 5, then %v", n, err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// TestCredentialsStayInside: nothing that may be a credential in an address is
// logged, in an error, or sent to another server.
func TestCredentialsStayInside(t *testing.T) {
	t.Parallel()
	var referer string
	there, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		referer = r.Header.Get("Referer")
		w.Write(program)
	})
	var authorized, query string
	here, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/consul":
			_, authorized, _ = r.BasicAuth()
			query = r.URL.RawQuery
			http.Redirect(w, r, there+"/consul?X-Amz-Signature=canary3", http.StatusFound)
		case "/nowhere":
			w.Header().Set("Location", "http://canary4@[::1/consul?X-Amz-Signature=canary5")
			w.WriteHeader(http.StatusFound)
		case "/dead":
			http.Redirect(w, r, "http://user:canary6@127.0.0.1:1/?token=canary7", http.StatusFound)
		}
	})
	secret := strings.Replace(here, "http://", "http://user:canary1@", 1)
	s := newShelf(t)
	s.installs(consul(secret+"/consul?token=canary2", program))
	if authorized != "canary1" || query != "token=canary2" {
		t.Errorf("the server got %q and %q", authorized, query)
	}
	if strings.Contains(referer, "canary") {
		t.Errorf("the next server got the Referer %q", referer)
	}
	said := s.log.String()
	for _, uri := range []string{
		secret + "/nowhere?token=canary2", secret + "/dead?token=canary2",
		"http://canary8@127.0.0.1:1/consul?token=canary2", "http://user:canary1@%zz/consul", "sftp://user:canary1@127.0.0.1/consul",
		"s3::https://user:canary1@127.0.0.1/consul?aws_access_key_secret=canary2", "https://canary1@127.0.0.1/consul//../x?canary2",
	} {
		s := newShelf(t)
		err := s.Install(t.Context(), s.bin, consul(uri, program))
		if err == nil {
			t.Fatalf("installed from %s", uri)
		}
		said += s.log.String() + err.Error() + "\n"
	}
	if strings.Contains(said, "canary") {
		t.Errorf("a credential is in:\n%s", said)
	}
}
