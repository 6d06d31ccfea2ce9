package launch

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"golang.org/x/sync/errgroup"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/docker/owned"
	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/usage"
)

// A Launch is one that runs in Docker, of whoever, or one of the person's own that has
// ended. Whose it is, and its GPUs, are what its labels say: that is to be shown, and
// proves nothing. Own is by a record.
type Launch struct {
	Name     string
	Image    string
	User     string
	GPUs     string // "" is none, else "all" or a list as in Options.GPUs
	Since    time.Time
	Until    time.Time `json:",omitzero"`
	State    string    // "running", "paused" and the like; "exited"; "lost" if somebody else removed the container
	Code     *int      `json:",omitempty"` // exit code, nil while it isn't known
	LastLine string    // of its output, without control characters
	Own      bool      // the person's: a record in their cache names it
	Lasting  bool      // started by Detach, as far as it is their own

	status daemon.Status // of one that is in Docker
	ended  *owned.Ended  // of one that isn't
}

// List lists the launches that run in a daemon and, with all, what is known of the
// person's own that have ended within owned.KeptFor, oldest first. Those that ended
// without a keeper are saved first.
func List(ctx context.Context, d *daemon.Client, all bool, s Streams) ([]Launch, error) {
	found, err := look(ctx, d, s)
	if err != nil {
		return nil, err
	}
	if !all {
		found = slices.DeleteFunc(found, func(l Launch) bool { return l.ended != nil })
	}
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(8)
	for i := range found {
		work.Go(func() error {
			found[i].LastLine = found[i].lastLine(ctx, d)
			return nil
		})
	}
	return found, work.Wait()
}

// OnGPUs lists the launches with GPUs that run in a daemon, of whoever.
func OnGPUs(ctx context.Context, d *daemon.Client) ([]Launch, error) {
	containers, err := launched(ctx, d)
	if err != nil {
		return nil, err
	}
	var all []Launch
	for _, l := range launchesOf(containers, nil, nil) {
		if l.GPUs == "" {
			continue
		}
		// A list may be a moment behind: one that has ended, has given back its lease and is
		// being removed would be among those that run.
		s, err := d.Inspect(ctx, l.status.ID)
		if err != nil && !errors.Is(err, daemon.ErrNotFound) {
			return nil, err
		}
		if err == nil && slices.Contains([]string{"running", "paused", "restarting"}, s.State) {
			all = append(all, l)
		}
	}
	return all, nil
}

// look finds all launches, without their last lines.
func look(ctx context.Context, d *daemon.Client, s Streams) ([]Launch, error) {
	dir, err := cache.Open()
	if err != nil {
		return nil, err
	}
	// What can't be saved or removed now is another command's.
	if _, err := owned.Sweep(ctx, dir, d, false); err != nil {
		fmt.Fprintf(s.Err, "Saving what launches left: %v\n", err)
	}
	containers, err := launched(ctx, d)
	if err != nil {
		return nil, err
	}
	made, err := owned.Containers(dir)
	if err != nil {
		return nil, err
	}
	ended, err := owned.AllEnded(dir)
	if err != nil {
		return nil, err
	}
	return launchesOf(containers, made, ended), nil
}

// launched lists the containers of launches that have started. One of an image that was
// committed from a launch has its labels, and isn't one.
func launched(ctx context.Context, d *daemon.Client) ([]daemon.Status, error) {
	labelled, err := d.Containers(ctx, daemon.LabelRole+"="+Role, daemon.LabelLaunch)
	if err != nil {
		return nil, err
	}
	var all []daemon.Status
	for _, c := range labelled {
		image, err := d.Image(ctx, c.Image)
		if err != nil && !errors.Is(err, daemon.ErrNotFound) {
			return nil, err
		}
		if c.State == "created" || c.State == "removing" || image.Labels[daemon.LabelLaunch] == c.Labels[daemon.LabelLaunch] {
			continue
		}
		if c.Ended() {
			if c, err = d.Inspect(ctx, c.ID); errors.Is(err, daemon.ErrNotFound) {
				continue
			} else if err != nil {
				return nil, err
			}
		}
		all = append(all, c)
	}
	return all, nil
}

// launchesOf puts together what Docker and the records say, oldest first.
func launchesOf(containers []daemon.Status, made []owned.Made, ended []owned.Ended) (all []Launch) {
	for _, c := range containers {
		if slices.ContainsFunc(ended, func(e owned.Ended) bool { return e.ID == c.ID }) {
			continue // saved, and about to be removed
		}
		l := Launch{
			Name: c.Name, Image: c.ImageTag, User: cmp.Or(c.Labels[daemon.LabelUser], "uid "+c.Labels[daemon.LabelOwner]),
			GPUs: c.Labels[daemon.LabelGPUs], Since: c.Created, State: c.State, status: c,
		}
		if c.Ended() {
			l.Code, l.Until = &c.ExitCode, c.Finished
		}
		if i := slices.IndexFunc(made, func(m owned.Made) bool { return m.ID == c.ID }); i >= 0 {
			l.Own, l.Lasting = true, made[i].Lasting != nil
		}
		all = append(all, l)
	}
	for _, e := range ended {
		l := Launch{Name: e.Name, Image: e.Image, User: e.User, GPUs: e.GPUs, Since: e.Since, Until: e.Until, State: "exited", Code: &e.Code,
			Own: true, Lasting: true, ended: &e}
		if e.Lost {
			l.State, l.Code = "lost", nil
		}
		all = append(all, l)
	}
	slices.SortStableFunc(all, func(a, b Launch) int { return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Name, b.Name)) })
	return all
}

// find returns the launch that a person means by what they typed, perhaps one that has
// ended.
func find(ctx context.Context, d *daemon.Client, typed string, ended bool, s Streams) (Launch, error) {
	all, err := look(ctx, d, s)
	if err != nil {
		return Launch{}, err
	}
	if !ended {
		all = slices.DeleteFunc(all, func(l Launch) bool { return l.ended != nil || l.status.Ended() })
	}
	return choose(typed, all)
}

// choose returns the launch of that name or, if there is none, the only one whose name
// begins so. Nothing typed means the person's only one. Their own come before those of
// others, then those that run before those that have ended, and the latest before those of
// the same name.
func choose(typed string, all []Launch) (Launch, error) {
	match := func(is func(Launch) bool) (found []Launch) {
		for _, l := range all {
			if is(l) {
				found = append(found, l)
			}
		}
		for _, worse := range []func(Launch) bool{
			func(l Launch) bool { return !l.Own }, func(l Launch) bool { return l.ended != nil },
		} {
			if better := slices.DeleteFunc(slices.Clone(found), worse); len(better) > 0 {
				found = better
			}
		}
		var latest []Launch
		for _, l := range slices.Backward(found) {
			if !slices.ContainsFunc(latest, func(o Launch) bool { return o.Name == l.Name }) {
				latest = append(latest, l)
			}
		}
		return latest
	}
	found := match(func(l Launch) bool { return l.Name == typed })
	if len(found) == 0 {
		found = match(func(l Launch) bool { return strings.HasPrefix(l.Name, typed) && (typed != "" || l.Own) })
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return Launch{}, fmt.Errorf("-n: %w: which one? There are%s", usage.Err, listed(found))
	case len(all) == 0:
		return Launch{}, fmt.Errorf("-n: %w: there is no launch", usage.Err)
	case typed == "":
		return Launch{}, fmt.Errorf("-n: %w: none of the launches is yours. There are%s", usage.Err, listed(all))
	}
	return Launch{}, fmt.Errorf("-n: %w: no launch has a name that begins with %q. There are%s", usage.Err, typed, listed(all))
}

func listed(all []Launch) (text string) {
	for _, l := range all {
		text += fmt.Sprintf("\n\t%s (%s, %s)", l.Name, l.User, l.how())
	}
	return text
}

// mine refuses a launch that no record of the person's names: labels prove nothing.
func (l Launch) mine() error {
	if l.Own {
		return nil
	}
	return fmt.Errorf("%s is a launch of %s, as its labels say: no record in your cache folder has it, so Berth only shows it. "+
		"If it is yours, started with another BERTH_CACHE, set that", l.Name, l.User)
}

// how is the state in a word or two.
func (l Launch) how() string {
	if l.Code != nil {
		return fmt.Sprintf("exit code %d", *l.Code)
	}
	return l.State
}

// lastLine returns the last line with something on it of what a launch wrote, or ""
// where it can't be read.
func (l Launch) lastLine(ctx context.Context, d *daemon.Client) string {
	var b strings.Builder
	if l.ended != nil {
		copyStreams(bytes.NewReader(l.ended.Tail), l.ended.TTY, &b, &b)
	} else if err := l.copyLog(ctx, d, &b, &b, owned.TailLines, false); err != nil {
		return ""
	}
	return lastLine(b.String())
}

// escapes are the control sequences of terminals (ECMA-48), and what xterm's titles begin with.
var escapes = regexp.MustCompile(`\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|[ -/]*[0-~])`)

// lastLine returns the last line of a text with something visible on it: what somebody
// else's program wrote must not move the reader's cursor.
func lastLine(text string) string {
	// A carriage return begins the line anew, as progress bars do.
	lines := strings.FieldsFunc(escapes.ReplaceAllString(text, ""), func(r rune) bool { return r == '\n' || r == '\r' })
	for _, line := range slices.Backward(lines) {
		line = strings.TrimSpace(strings.Map(func(r rune) rune {
			if !unicode.IsPrint(r) && r != ' ' {
				return -1
			}
			return r
		}, strings.ReplaceAll(line, "\t", " ")))
		if line != "" {
			return line
		}
	}
	return ""
}

// shownLine is how much of a last line is in a table.
const shownLine = 60

// Table is a list of launches for a person to read.
func Table(all []Launch) string {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tWHO\tGPUS\tSINCE\tSTATE\tLAST LINE")
	for _, l := range all {
		line := []rune(l.LastLine)
		if len(line) > shownLine {
			line = append(line[:shownLine-1], '…')
		}
		state := l.how()
		if !l.Until.IsZero() {
			state += " at " + at(l.Until)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", oneLine(l.Name), oneLine(l.User), oneLine(cmp.Or(l.GPUs, "none")), at(l.Since), state,
			strings.TrimSpace(string(line)))
	}
	t.Flush()
	return b.String()
}

func at(t time.Time) string { return t.Local().Format("2006-01-02 15:04") }
