package proxyconfig

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/meshctl/meshctl/internal/cli/factory"
	"github.com/meshctl/meshctl/internal/proxystate"
)

type logOptions struct {
	options
	level string
	reset bool
}

func newLog(f *factory.Factory) *cobra.Command {
	o := &logOptions{options: options{f: f}}
	cmd := o.command("log", "logs", "Show and set how much a proxy logs",
		`Show the level of each of the proxy's loggers, and set them: all with --level debug, or some with
--level http:debug,router:trace. The levels are trace, debug, info, warning, error, critical and off.
--reset goes back to what the proxy was started with. A level lasts until the proxy restarts.`,
		`  meshctl proxy-config log deployment/productpage-v1
  meshctl proxy-config log deployment/productpage-v1 --level http:debug,router:debug
  meshctl proxy-config log deployment/productpage-v1 --reset`,
		tables(), o.run)
	cmd.Flags().StringVar(&o.level, "level", "", "LEVEL for all loggers, or LOGGER:LEVEL,... for some")
	cmd.Flags().BoolVar(&o.reset, "reset", false, "go back to the levels the proxy was started with")
	if err := cmd.Flags().MarkHidden("file"); err != nil {
		panic(err) // command defines it
	}
	factory.Values(cmd, "level", proxystate.Levels()...)
	return cmd
}

func (o *logOptions) run(ctx context.Context, args []string) error {
	if o.file != "" {
		return factory.Usage("a saved dump has no loggers: name the pod")
	}
	if o.reset && o.level != "" {
		return factory.Usage("--level and --reset exclude each other")
	}
	set, err := parseLevels(o.level)
	if err != nil {
		return err
	}
	admin, client, err := o.admin(ctx, args)
	if err != nil {
		return err
	}
	before, err := admin.Loggers(ctx)
	if err != nil {
		return o.f.Explain(client, err)
	}
	for _, l := range set {
		if l.Logger != "" && !slices.ContainsFunc(before, func(b proxystate.Level) bool { return b.Logger == l.Logger }) {
			return factory.Usage("--level: the proxy has no logger %q; without --level its loggers are listed", l.Logger)
		}
	}
	if o.reset {
		if set, err = admin.StartLevels(ctx); err != nil {
			return o.f.Explain(client, err)
		}
	}
	if len(set) > 0 {
		if err := admin.SetLevels(ctx, set); err != nil {
			return o.f.Explain(client, err)
		}
		if before, err = admin.Loggers(ctx); err != nil {
			return o.f.Explain(client, err)
		}
	}
	var rows [][]string
	for _, l := range before {
		rows = append(rows, []string{l.Logger, l.Level})
	}
	return o.show("loggers", []string{"LOGGER", "LEVEL"}, rows, before)
}

// parseLevels reads LEVEL and LOGGER:LEVEL,... in the order given.
func parseLevels(text string) ([]proxystate.Level, error) {
	if text == "" {
		return nil, nil
	}
	var out []proxystate.Level
	for _, one := range strings.Split(text, ",") {
		logger, level, some := strings.Cut(one, ":")
		if !some {
			logger, level = "", one
		}
		if level == "warn" {
			level = "warning"
		}
		if !slices.Contains(proxystate.Levels(), level) || some && logger == "" {
			return nil, factory.Usage("--level %s: it is LEVEL or LOGGER:LEVEL,..., and the levels are %s", one, strings.Join(proxystate.Levels(), ", "))
		}
		out = append(out, proxystate.Level{Logger: logger, Level: level})
	}
	return out, nil
}
