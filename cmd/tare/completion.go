package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/tare-oci/tare/engine"
	"github.com/tare-oci/tare/internal/getopt"
)

// The shells ask tare itself, by its hidden command __complete, what can follow the words on the line. Where it has nothing to
// say, they complete the names of files.
var scripts = map[string]string{
	"bash": `_tare() {
	local line=${COMP_LINE:0:COMP_POINT} words cur
	read -ra words <<<"$line"
	[[ $line == *[[:space:]] ]] && words+=("")
	cur=${words[-1]}
	local IFS=$'\n' reply
	reply=($("${words[0]}" __complete -- "${words[@]:1}" 2>/dev/null))
	# What readline takes for the word begins behind the last = or : of what was typed.
	local head=${cur%"${cur##*[=:]}"} r
	COMPREPLY=()
	for r in "${reply[@]}"; do COMPREPLY+=("${r#"$head"}"); done
}
complete -o default -F _tare tare
`,
	"zsh": `#compdef tare
_tare() {
	local -a reply
	reply=("${(@f)$("${words[1]}" __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
	if [[ -n "${reply[*]}" ]]; then compadd -- "${reply[@]}"; else _files; fi
}
if [ "$funcstack[1]" = _tare ]; then _tare "$@"; else compdef _tare tare; fi
`,
	"fish": `function __tare_complete
	set -l words (commandline -opc) (commandline -ct)
	$words[1] __complete -- $words[2..-1] 2>/dev/null
end
complete -c tare -a '(__tare_complete)'
`,
}

var completionCommand = command{
	name:    "completion",
	args:    "bash|zsh|fish",
	summary: "Print what makes a shell complete tare's words",
	setup: func(*getopt.Set) func([]string) (int, error) {
		return func(args []string) (int, error) {
			if len(args) != 1 || scripts[args[0]] == "" {
				return exitTare, errors.New("completion: takes one of bash, zsh and fish")
			}
			fmt.Print(scripts[args[0]])
			return 0, nil
		}
	},
	more: `
For bash: source <(tare completion bash). For zsh: tare completion zsh > "${fpath[1]}/_tare". For fish: tare completion fish | source.
`,
}

// completeCommand returns the command that the scripts call.
func completeCommand() command {
	return command{
		name:    "__complete",
		args:    "-- WORD…",
		summary: "Say what can stand in place of the last word",
		hidden:  true,
		setup: func(*getopt.Set) func([]string) (int, error) {
			return func(args []string) (int, error) {
				for _, w := range complete(commands(), args, offer) {
					fmt.Println(w)
				}
				return 0, nil
			}
		},
	}
}

// complete returns what the last of words can be. offer lists operands of a kind.
func complete(list []command, words []string, offer func(kind, root string) []string) []string {
	if len(words) == 0 {
		words = []string{""}
	}
	last := words[len(words)-1]
	var options getopt.Set
	var current *command
	root, value, operands := "", "", 0
	for i := 0; i < len(words)-1; i++ {
		w := words[i]
		switch {
		case value != "":
			if value == "root" {
				root = w
			}
			value = ""
		case current == nil:
			if list, current = step(list, w); list == nil && current == nil {
				return nil
			}
			if current != nil {
				current.setup(&options)
			}
		case strings.HasPrefix(w, "-") && w != "-" && (operands == 0 || !current.first):
			value = takesValue(options.Options(), w)
			if name, v, ok := strings.Cut(w, "="); ok && name == "--root" {
				root = v
			}
		default:
			operands++
		}
	}
	var found []string
	switch {
	case value != "":
		return nil
	case current == nil:
		for _, c := range list {
			if !c.hidden {
				found = append(found, c.name)
			}
		}
	case strings.HasPrefix(last, "-") && (operands == 0 || !current.first):
		for _, o := range options.Options() {
			found = append(found, "--"+o.Long)
		}
		found = append(found, "--help")
	case operands == 0 || !current.first:
		found = offer(current.operands, root)
	}
	found = slices.DeleteFunc(found, func(s string) bool { return !strings.HasPrefix(s, last) })
	sort.Strings(found)
	return slices.Compact(found)
}

// step goes on by one word: to the commands of a group, or to a command.
func step(list []command, word string) (group []command, c *command) {
	for i := range list {
		if list[i].name != word {
			continue
		}
		if list[i].sub != nil {
			return list[i].sub, nil
		}
		return nil, &list[i]
	}
	return nil, nil
}

// takesValue returns the long name of the option in word if its value is the next word.
func takesValue(options []getopt.Option, word string) string {
	for _, o := range options {
		if o.Arg == "" {
			continue
		}
		if word == "--"+o.Long || len(word) >= 2 && word[1] != '-' && o.Short != 0 && word[len(word)-1] == o.Short {
			return o.Long
		}
	}
	return ""
}

// offer lists names of images or containers. What cannot be read is not offered.
func offer(kind, root string) []string {
	if kind == "" {
		return nil
	}
	if root == "" {
		var err error
		if root, err = engine.DefaultRoot(); err != nil {
			return nil
		}
	}
	e, err := engine.Open(root)
	if err != nil {
		return nil
	}
	var names []string
	if kind == "container" {
		list, err := e.List()
		if err != nil {
			return nil
		}
		for _, c := range list {
			names = append(names, c.Name)
		}
		return names
	}
	all, err := e.ImageNames(context.Background())
	if err != nil {
		return nil
	}
	for _, n := range all {
		names = append(names, engine.Familiar(n))
	}
	return names
}
