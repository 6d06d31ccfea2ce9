package wheels

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path"
	"strings"

	"golang.org/x/net/html"

	"github.com/berthdev/berth/internal/download"
)

// accept are the forms of an index's pages, the preferred one first: JSON (PEP 691) and
// HTML (PEP 503), which old indices serve whatever is asked for.
const accept = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"

// maxPage is how long a project's page may be.
const maxPage = 64 << 20

// lookUp returns the address that a simple index has for a wheel.
func (f *fetcher) lookUp(ctx context.Context, index string, w Wheel) (string, error) {
	base, err := url.Parse(index)
	if err != nil {
		return "", errors.New("its address isn't a URL")
	}
	page := base.JoinPath(w.Name + "/")
	getter := f.getter
	getter.Accept = accept
	body, _, err := getter.Get(ctx, page.String(), 0)
	if err != nil {
		return "", err
	}
	defer body.Close()
	data, err := io.ReadAll(io.LimitReader(body, maxPage+1))
	if err != nil {
		return "", err
	}
	if len(data) > maxPage {
		return "", fmt.Errorf("its page for %s is longer than %d MB", w.Name, maxPage>>20)
	}
	links, err := parsePage(data)
	if err != nil {
		return "", err
	}
	at, ok := links[w.File]
	if !ok {
		return "", fmt.Errorf("%w: its page for %s doesn't list the wheel", download.ErrNotThere, w.Name)
	}
	ref, err := url.Parse(at)
	if err != nil {
		return "", errors.New("the address that it has for the wheel isn't a URL")
	}
	address := page.ResolveReference(ref)
	address.Fragment = ""
	if address.Host == page.Host && address.Scheme == page.Scheme {
		address.User = page.User
	}
	return address.String(), nil
}

// parsePage returns the addresses of files by their names, from a project's page in
// either form. They may be relative to the page.
func parsePage(data []byte) (map[string]string, error) {
	links := map[string]string{}
	if strings.HasPrefix(strings.TrimSpace(string(data)), "{") {
		var page struct {
			Files []struct{ Filename, URL string }
		}
		if err := json.Unmarshal(data, &page); err != nil {
			return nil, fmt.Errorf("its page makes no sense: %w", err)
		}
		for _, f := range page.Files {
			links[f.Filename] = f.URL
		}
		return links, nil
	}
	var base *url.URL
	for z := html.NewTokenizer(bytes.NewReader(data)); ; {
		if z.Next() == html.ErrorToken {
			if err := z.Err(); err != io.EOF {
				return nil, err
			}
			return links, nil
		}
		t := z.Token()
		if t.Data != "a" && t.Data != "base" {
			continue
		}
		for _, attribute := range t.Attr {
			u, err := url.Parse(attribute.Val)
			if attribute.Key != "href" || err != nil {
				continue
			}
			switch {
			case t.Data == "base":
				base = u
			case base != nil:
				links[path.Base(u.Path)] = base.ResolveReference(u).String()
			default:
				links[path.Base(u.Path)] = u.String()
			}
		}
	}
}
