// Package bookinfo is the sample's four services: productpage, details, reviews and ratings.
//
// In go a role, its flags and the requests of a browser; out come pages and JSON. The services speak plain HTTP/1.1 and know nothing of
// a mesh: what a mesh needs of them is that they hand on a request's trace headers and the user's cookie.
package bookinfo

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/meshctl/meshctl/internal/version"
)

// What Main returns to the shell.
const (
	exitOK    = 0
	exitUsage = 2
	exitError = 3
)

const usage = `Usage: bookinfo productpage|details|reviews|ratings [flags]

Runs one service of the Bookinfo sample.

`

// options is one run of one service, every setting resolved.
type options struct {
	role       string
	version    string
	port       int
	drainDelay time.Duration
	stars      string // reviews: colour, or "" for none
	details    string // host:port, as are the next two
	reviews    string
	ratings    string
}

// Main runs the service that args name until ctx ends, and returns the exit code.
func Main(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	o, err := parse(args, getenv, stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		fmt.Fprintf(stderr, "bookinfo: %v\nRun 'bookinfo --help' for usage.\n", err)
		return exitUsage
	}
	pod, err := os.Hostname()
	if err != nil {
		pod = "unknown"
	}
	log := slog.New(slog.NewJSONHandler(stderr, nil)).With("service", o.role, "version", o.version)
	handler, err := newHandler(o, pod, log)
	if err != nil {
		log.Error("building the service", "error", err)
		return exitError
	}
	l, err := net.Listen("tcp", net.JoinHostPort("", strconv.Itoa(o.port)))
	if err != nil {
		log.Error("opening the port", "error", err)
		return exitError
	}
	log.Info("listening", "address", l.Addr().String(), "release", version.Version)
	if err := serve(ctx, l, handler, o.drainDelay, log); err != nil {
		log.Error("serving", "error", err)
		return exitError
	}
	log.Info("stopped")
	return exitOK
}

// newHandler makes the service that o names.
func newHandler(o options, pod string, log *slog.Logger) (http.Handler, error) {
	mux := http.NewServeMux()
	switch o.role {
	case "details":
		details{}.routes(mux)
	case "ratings":
		ratings{}.routes(mux)
	case "reviews":
		reviews{stars: o.stars, version: o.version, pod: pod, ratings: newUpstream("http://" + o.ratings)}.routes(mux)
	case "productpage":
		p, err := newProductpage(newUpstream("http://"+o.details), newUpstream("http://"+o.reviews), newUpstream("http://"+o.ratings), o.version, pod)
		if err != nil {
			return nil, err
		}
		p.routes(mux)
	}
	return logged(log, mux), nil
}

// parse reads the command line; a flag wins over the environment, the environment over the default.
func parse(args []string, getenv func(string) string, stdout io.Writer) (options, error) {
	if len(args) == 0 {
		return options{}, errors.New("which service? one of productpage, details, reviews, ratings")
	}
	o := options{role: args[0]}
	fs := flag.NewFlagSet("bookinfo", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.IntVar(&o.port, "port", 9080, "port to listen on; 0 takes a free one, which the first log line names")
	fs.StringVar(&o.version, "version", "", "version of the service (env SERVICE_VERSION, else v1); reviews show no stars in v1, black ones in v2, red ones in v3")
	fs.DurationVar(&o.drainDelay, "drain-delay", 2*time.Second, "how long to go on accepting requests once told to stop, so that callers can learn of it")
	fs.StringVar(&o.details, "details", "", "host[:port] of details (env DETAILS_HOSTNAME, else details, in the domain of env SERVICES_DOMAIN)")
	fs.StringVar(&o.reviews, "reviews", "", "host[:port] of reviews (env REVIEWS_HOSTNAME, else reviews, likewise)")
	fs.StringVar(&o.ratings, "ratings", "", "host[:port] of ratings (env RATINGS_HOSTNAME, else ratings, likewise)")
	help := func() error {
		fmt.Fprint(stdout, usage)
		fs.SetOutput(stdout)
		fs.PrintDefaults()
		return flag.ErrHelp
	}

	switch o.role {
	case "productpage", "details", "reviews", "ratings":
	case "help", "-h", "-help", "--help":
		return o, help()
	default:
		return o, fmt.Errorf("unknown service %q; the services are productpage, details, reviews and ratings", o.role)
	}
	if err := fs.Parse(args[1:]); errors.Is(err, flag.ErrHelp) {
		return o, help()
	} else if err != nil {
		return o, err
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if o.port < 0 || o.port > 65535 {
		return o, fmt.Errorf("--port %d is not a port", o.port)
	}
	if o.drainDelay < 0 {
		return o, fmt.Errorf("--drain-delay %s is negative", o.drainDelay)
	}
	if err := o.pickVersion(getenv); err != nil {
		return o, err
	}
	for name, addr := range map[string]*string{"details": &o.details, "reviews": &o.reviews, "ratings": &o.ratings} {
		a, err := address(name, *addr, getenv)
		if err != nil {
			return o, err
		}
		*addr = a
	}
	return o, nil
}

// pickVersion settles the version and, for reviews, the stars that go with it. The 2017 images were told the stars by environment
// variables of their own, which still count unless the flag says otherwise.
func (o *options) pickVersion(getenv func(string) string) error {
	byFlag := o.version != ""
	if !byFlag {
		o.version = getenv("SERVICE_VERSION")
	}
	if o.version == "" {
		o.version = "v1"
	}
	if o.role != "reviews" {
		return nil
	}
	switch o.version {
	case "v1":
	case "v2":
		o.stars = "black"
	case "v3":
		o.stars = "red"
	default:
		return fmt.Errorf("reviews has no version %q; there are v1, v2 and v3", o.version)
	}
	if enable := getenv("ENABLE_RATINGS"); enable != "" && !byFlag {
		o.stars = ""
		if on, err := strconv.ParseBool(enable); err != nil {
			return fmt.Errorf("ENABLE_RATINGS is %q, not true or false", enable)
		} else if on {
			o.stars = "black"
			if c := getenv("STAR_COLOR"); c != "" {
				o.stars = c
			}
		}
	}
	return nil
}

// address is where a service is called: what the flag says, else the environment, else its plain name.
func address(name, given string, getenv func(string) string) (string, error) {
	host := given
	if host == "" {
		host = getenv(strings.ToUpper(name) + "_HOSTNAME")
	}
	if host == "" {
		host = name
		if domain := getenv("SERVICES_DOMAIN"); domain != "" {
			host += "." + domain
		}
	}
	if strings.ContainsAny(host, "/@?# ") {
		return "", fmt.Errorf("the address of %s is %q, not host or host:port", name, host)
	}
	if _, _, err := net.SplitHostPort(host); err != nil {
		host = net.JoinHostPort(strings.Trim(host, "[]"), "9080")
	}
	return host, nil
}
