package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/config"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/printable"
	"github.com/spf13/pflag"
)

func configCommand(e *env) cli.Command {
	return cli.Command{
		Name:  "config",
		Usage: "[--json] [KEY...]",
		Entry: cli.Entry{Text: "show the settings in force; also: completion"},
		About: `Prints the settings in force, and where each comes from: the command line, an
environment variable, the configuration file or the default. That file is
~/.config/imgfs/config.toml (XDG_CONFIG_HOME counts; IMGFS_CONFIG names another,
or none if it is empty). Its keys are flags without their hyphens, for every
command or in a table for one:

  cache-dir = "/var/tmp/imgfs"
  index-repo = ["registry.example.com/imgfs/indexes"]
  [mount]
  prefetch = true

KEY is such a key, as offline or mount.prefetch. The file must be such that only
you and root can write it. A mount keeps what it began with.`,
		Lenient: true,
		Example: "imgfs config cache-dir mount.prefetch",
		Setup: func(f *pflag.FlagSet) cli.Action {
			asJSON := f.Bool("json", false, "an object instead of a table: docs/json.md")
			return func(_ context.Context, args []string) error {
				return e.printConfig(f, args, *asJSON)
			}
		},
	}
}

// A configDoc is what imgfs config --json prints.
type configDoc struct {
	// File is the configuration file, or where it would be. It is missing if there is to
	// be none.
	File      string         `json:"file,omitempty"`
	FileBytes show.NameBytes `json:"fileBytes,omitempty"`
	// Read says that the file was there and is right.
	Read     bool            `json:"read"`
	Settings []configSetting `json:"settings"`
}

// A configSetting is a setting in force.
type configSetting struct {
	Key        string         `json:"key"`
	Value      string         `json:"value"` // "" is the default if nothing else is said of it
	ValueBytes show.NameBytes `json:"valueBytes,omitempty"`
	// From is what kind of thing it comes from: "default", "file", "variable" or "flag".
	From string `json:"from"`
	// Line of the file, from 1.
	Line int `json:"line,omitempty"`
	// Variable is the environment variable.
	Variable string `json:"variable,omitempty"`
}

// where returns for people where a setting comes from, of a file at a path.
func (s *configSetting) where(file string) string {
	switch s.From {
	case "flag":
		return "--" + s.Key
	case "variable":
		return s.Variable
	case "file":
		return config.Place(file, s.Line)
	}
	return s.From
}

// printConfig prints the settings that have the keys, or all.
func (e *env) printConfig(f *pflag.FlagSet, keys []string, asJSON bool) error {
	doc := &configDoc{Settings: []configSetting{}}
	doc.File, _ = config.Path()
	file, wrong := e.loadConfig()
	if wrong == nil {
		doc.Read = file.Path != ""
		wrong = e.checkConfig(file)
	} else {
		file = new(config.File)
	}
	all, known := e.settingsInForce(f, file)
	for _, key := range keys {
		s, ok := all[key]
		if !ok {
			err := cli.Usagef("config: there is no key %s", printable.Name(key))
			if near := cli.Nearest(key, known); len(near) > 0 {
				return cli.WithHint(err, "imgfs config "+near[0])
			}
			return err
		}
		doc.Settings = append(doc.Settings, s)
	}
	for _, key := range known {
		if s := all[key]; len(keys) == 0 && (!strings.Contains(key, ".") || s.From != "default") {
			doc.Settings = append(doc.Settings, s)
		}
	}
	if err := e.writeConfig(doc, asJSON); err != nil {
		return err
	}
	return wrong
}

func (e *env) writeConfig(doc *configDoc, asJSON bool) error {
	if asJSON {
		return show.JSON(e.Stdout, doc)
	}
	t := show.NewTable(e.tableWidth(), show.Column{Title: "KEY"}, show.Column{Title: "VALUE", Least: 12}, show.Column{Title: "FROM", Least: 12})
	for _, s := range doc.Settings {
		t.Row(printable.Cell(s.Key), cmp.Or(printable.Cell(s.Value), "-"), printable.Cell(s.where(doc.File)))
	}
	return t.Print(e.Stdout)
}

// checkConfig returns the first error in a file, whatever the command is.
func (e *env) checkConfig(file *config.File) error {
	p := newEnv(e.Raw, e.Stderr).program()
	if err := checkTables(p, file); err != nil {
		return err
	}
	for _, name := range append(commandNames(p.Commands, ""), "") {
		f := commandFlags(p, name)
		for _, s := range file.Settings {
			if s.Command != name {
				continue
			}
			if err := checkSetting(p, file, s, f); err != nil {
				return err
			}
			for _, value := range s.Values {
				if err := f.Lookup(s.Key).Value.Set(value); err != nil {
					return &config.Error{Path: file.Path, Line: s.Line, Err: fmt.Errorf("%s: %w", s.Key, err)}
				}
			}
		}
	}
	return nil
}

// commandFlags returns the flags of a command, those that all commands take among them.
func commandFlags(p *cli.Program, name string) *pflag.FlagSet {
	f := pflag.NewFlagSet(name, pflag.ContinueOnError)
	f.SortFlags = false
	if c := commandNamed(p.Commands, strings.Fields(name)); c != nil && c.Setup != nil {
		c.Setup(f)
	}
	global := pflag.NewFlagSet("", pflag.ContinueOnError)
	global.SortFlags = false
	for _, declare := range p.Flags {
		declare(global)
	}
	cli.AddFlags(f, global)
	return f
}

// settingsInForce returns all settings by their keys, and the keys in their order. f has
// the flags that all commands take, as they were given.
func (e *env) settingsInForce(f *pflag.FlagSet, file *config.File) (all map[string]configSetting, keys []string) {
	all = make(map[string]configSetting)
	p := newEnv(e.Raw, e.Stderr).program()
	add := func(command string, flag *pflag.Flag, given bool) {
		key := strings.TrimPrefix(strings.ReplaceAll(command, " ", ".")+"."+flag.Name, ".")
		if !cli.IsSetting(flag) || notSettings[strings.TrimSpace(command+" "+flag.Name)] != "" || all[key].Key != "" {
			return
		}
		all[key] = inForce(key, command, flag, file, given)
		keys = append(keys, key)
	}
	commandFlags(p, "").VisitAll(func(flag *pflag.Flag) { add("", f.Lookup(flag.Name), true) })
	for _, name := range commandNames(p.Commands, "") {
		commandFlags(p, name).VisitAll(func(flag *pflag.Flag) {
			_, global := all[flag.Name]
			if i := settingIn(file, name, flag.Name); !global || i >= 0 {
				add(name, flag, false)
			}
		})
	}
	return all, keys
}

// settingIn returns the place of a setting in a file, or -1.
func settingIn(file *config.File, command, key string) int {
	return slices.IndexFunc(file.Settings, func(s config.Setting) bool { return s.Command == command && s.Key == key })
}

// inForce returns the setting of a flag. given says that the flag is as the command line
// has it, and not only declared.
func inForce(key, command string, flag *pflag.Flag, file *config.File, given bool) configSetting {
	s := configSetting{Key: key, Value: flag.Value.String(), From: "default"}
	name, i := cli.Variable(flag), settingIn(file, command, flag.Name)
	switch {
	case given && cli.IsGiven(flag):
		s.From = "flag"
	case name != "":
		s.From, s.Variable, s.Value = "variable", name, os.Getenv(name)
	case i >= 0:
		s.From, s.Line, s.Value = "file", file.Settings[i].Line, strings.Join(file.Settings[i].Values, ",")
	default:
		s.Value = cmp.Or(defaultOf(flag), s.Value)
	}
	if t := flag.Value.Type(); (t == cli.DirType || t == cli.FileType) && s.From != "default" {
		s.Value = expandHome(s.Value)
	}
	return s
}

// defaultOf returns the default that help names in parentheses at the end of a flag's
// text, or "" if it names none.
func defaultOf(flag *pflag.Flag) string {
	if flag.Name == "cache-dir" {
		if dir, err := cache.DefaultDir(); err == nil {
			return dir
		}
	}
	if flag.Value.Type() == "bool" || !strings.HasSuffix(flag.Usage, ")") {
		return ""
	}
	return strings.TrimSuffix(flag.Usage[strings.LastIndexByte(flag.Usage, '(')+1:], ")")
}
