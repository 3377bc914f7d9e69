package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/config"
	"github.com/imgfs/imgfs/remote/printable"
	"github.com/spf13/pflag"
)

// notSettings are flags that no file may set: what is removed is for the command line to
// say, and options are flags already.
var notSettings = map[string]string{
	"cache prune all":        "what is removed says the command line alone",
	"cache prune older-than": "what is removed says the command line alone",
	"cache prune to":         "what is removed says the command line alone",
	"mount " + optionFlag:    "each option is a key of its own, as in noexec = true",
}

// loadConfig reads the user's configuration file, once.
func (e *env) loadConfig() (*config.File, error) {
	if e.config != nil {
		return e.config, nil
	}
	file, err := config.Load()
	if err != nil {
		return nil, configHint(err)
	}
	e.config = file
	return file, nil
}

// configHint adds to an error of a file what helps.
func configHint(err error) error {
	var failed *config.Error
	if errors.As(err, &failed) && errors.Is(err, config.ErrUnsafe) {
		return cli.WithHint(err, fmt.Sprintf("chmod go-w %s, if all of it is yours; %s= goes without it", printable.Word(failed.Path), config.Variable))
	}
	return err
}

// settings returns what the user's file says for a command, or for all. It looks at that
// part of the file alone; imgfs config looks at all of it.
func (e *env) settings(p *cli.Program) func(string, *pflag.FlagSet) ([]cli.Setting, error) {
	return func(command string, f *pflag.FlagSet) ([]cli.Setting, error) {
		file, err := e.loadConfig()
		if err != nil {
			return nil, err
		}
		var all []cli.Setting
		for _, s := range file.Settings {
			if s.Command != command {
				continue
			}
			if err := checkSetting(p, file, s, f); err != nil {
				return nil, err
			}
			if s.Key != "" {
				all = append(all, cli.Setting{Flag: s.Key, Values: s.Values, From: config.Place(file.Path, s.Line)})
			}
		}
		if command != "" {
			return all, nil
		}
		return all, checkTables(p, file)
	}
}

// checkTables returns an error if a table of a file is called after no command.
func checkTables(p *cli.Program, file *config.File) error {
	for _, s := range file.Settings {
		if s.Command == "" || commandNamed(p.Commands, strings.Fields(s.Command)) != nil {
			continue
		}
		err := error(&config.Error{Path: file.Path, Line: s.Line, Err: fmt.Errorf("there is no command %s", printable.Name(s.Command))})
		if near := cli.Nearest(s.Command, commandNames(p.Commands, "")); len(near) > 0 {
			err = cli.WithHint(err, "["+strings.ReplaceAll(near[0], " ", ".")+"]")
		}
		return err
	}
	return nil
}

// commandNamed returns the command that words name, or nil.
func commandNamed(commands []cli.Command, words []string) *cli.Command {
	for i, c := range commands {
		if len(words) == 0 || c.Name != words[0] {
			continue
		}
		if len(words) == 1 {
			return &commands[i]
		}
		return commandNamed(c.Commands, words[1:])
	}
	return nil
}

// commandNames returns the words of all commands.
func commandNames(commands []cli.Command, before string) (names []string) {
	for _, c := range commands {
		names = append(names, before+c.Name)
		names = append(names, commandNames(c.Commands, before+c.Name+" ")...)
	}
	return names
}

// checkSetting returns an error if a setting is for no flag of f, or cannot be one of its
// values.
func checkSetting(p *cli.Program, file *config.File, s config.Setting, f *pflag.FlagSet) error {
	if s.Key == "" {
		return nil
	}
	wrong := func(format string, args ...any) error {
		return &config.Error{Path: file.Path, Line: s.Line, Err: fmt.Errorf(format, args...)}
	}
	flag := f.Lookup(s.Key)
	if reason := notSettings[strings.TrimSpace(s.Command+" "+s.Key)]; reason != "" {
		return wrong("%s cannot be set here: %s", s.Key, reason)
	}
	if flag == nil || !cli.IsSetting(flag) && flag.Name != noExecFlag {
		return hintSetting(p, s, f, wrong("there is no key %s", printable.Name(s.Key)))
	}
	if _, list := flag.Value.(cli.Replacer); !list && len(s.Values) != 1 {
		return wrong("%s is one value, and no list", s.Key)
	}
	if t := flag.Value.Type(); t == cli.FileType || t == cli.DirType {
		if path := s.Values[0]; !filepath.IsAbs(expandHome(path)) {
			return wrong("%s: %s is relative: the path begins with / or ~/", s.Key, printable.Name(path))
		}
	}
	return nil
}

// hintSetting adds to the error about an unknown key what may have been meant.
func hintSetting(p *cli.Program, s config.Setting, f *pflag.FlagSet, err error) error {
	if s.Command == "" {
		for _, name := range commandNames(p.Commands, "") {
			c, own := commandNamed(p.Commands, strings.Fields(name)), pflag.NewFlagSet("", pflag.ContinueOnError)
			if c.Setup == nil {
				continue
			}
			c.Setup(own)
			if flag := own.Lookup(s.Key); flag != nil && cli.IsSetting(flag) {
				return cli.WithHint(err, "["+strings.ReplaceAll(name, " ", ".")+"] before it")
			}
		}
	}
	var names []string
	f.VisitAll(func(flag *pflag.Flag) {
		if cli.IsSetting(flag) {
			names = append(names, flag.Name)
		}
	})
	if near := cli.Nearest(strings.ReplaceAll(s.Key, "_", "-"), names); len(near) > 0 {
		return cli.WithHint(err, near[0])
	}
	return cli.WithHint(err, "the keys are the flags without their hyphens; imgfs config lists them")
}

// offlineHint adds to an error about --offline where a file sets it.
func offlineHint(f *pflag.FlagSet, err error) error {
	if from := cli.From(f, "offline"); from != "" {
		return cli.WithHint(err, "--offline=false; it is set in "+printable.Name(from))
	}
	return err
}
