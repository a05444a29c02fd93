package mutate

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/internal/rawjson"
)

// Change sets fields of the configuration by an instruction of a Dockerfile, as docker commit --change and docker import --change
// do (row E3): CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME, WORKDIR. Variables of the image's
// environment are expanded where a Dockerfile's builder does that. An ENTRYPOINT empties a CMD that no Change of this Image has set.
func (img *Image) Change(instruction string) error {
	if err := img.change(instruction); err != nil {
		return fmt.Errorf("change %.200q: %w", instruction, err)
	}
	return nil
}

const changes = "CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME and WORKDIR"

func (img *Image) change(instruction string) error {
	text := strings.TrimSpace(strings.ReplaceAll(instruction, "\\\n", " "))
	if strings.ContainsAny(text, "\n\x00") {
		return errors.New("it has more than one line")
	}
	word, rest := cutWord(text)
	c, err := img.config.Object("config")
	if err != nil {
		return err
	}
	var parsed v1.ImageConfig
	raw, err := c.MarshalJSON()
	if err == nil {
		err = json.Unmarshal(raw, &parsed)
	}
	if err != nil {
		return err
	}
	do := map[string]func(*setter, string) error{
		"CMD": (*setter).cmd, "ENTRYPOINT": (*setter).entrypoint, "ENV": (*setter).env, "EXPOSE": (*setter).expose,
		"HEALTHCHECK": (*setter).healthcheck, "LABEL": (*setter).label, "ONBUILD": (*setter).onbuild,
		"STOPSIGNAL": (*setter).stopSignal, "USER": (*setter).user, "VOLUME": (*setter).volume, "WORKDIR": (*setter).workdir,
	}[strings.ToUpper(word)]
	if do == nil {
		return fmt.Errorf("instruction %.64q is unknown: want one of %s", word, changes)
	}
	if rest == "" {
		return fmt.Errorf("%s needs a value", strings.ToUpper(word))
	}
	if err := do(&setter{img: img, config: c, now: &parsed}, rest); err != nil {
		return err
	}
	return img.set("config", c)
}

// cutWord cuts the first word off.
func cutWord(s string) (word, rest string) {
	if i := strings.IndexAny(s, " \t"); i >= 0 {
		return s[:i], strings.TrimSpace(s[i:])
	}
	return s, ""
}

// setter sets one field.
type setter struct {
	img    *Image
	config *rawjson.Object
	now    *v1.ImageConfig // as it was before
}

// command parses a command: a JSON list, or text for the image's shell.
func (s *setter) command(text string) ([]string, error) {
	if list, ok := jsonList(text); ok {
		return list, nil
	}
	shell := []string{"/bin/sh", "-c"}
	if raw := s.config.Get("Shell"); raw != nil {
		if err := json.Unmarshal(raw, &shell); err != nil || len(shell) == 0 {
			return nil, errors.New("the image's Shell is not a list of strings")
		}
	}
	return append(slices.Clone(shell), text), nil
}

// jsonList parses a list of strings.
func jsonList(text string) ([]string, bool) {
	list := []string{}
	if !strings.HasPrefix(text, "[") || json.Unmarshal([]byte(text), &list) != nil {
		return nil, false
	}
	return list, true
}

func (s *setter) cmd(text string) error {
	list, err := s.command(text)
	if err != nil {
		return err
	}
	s.img.cmdSet = true
	return s.config.Set("Cmd", list)
}

func (s *setter) entrypoint(text string) error {
	list, err := s.command(text)
	if err != nil {
		return err
	}
	if !s.img.cmdSet {
		s.config.Delete("Cmd")
	}
	if len(list) == 0 {
		s.config.Delete("Entrypoint")
		return nil
	}
	return s.config.Set("Entrypoint", list)
}

func (s *setter) env(text string) error {
	pairs, err := s.pairs(text)
	if err != nil {
		return err
	}
	env := slices.Clone(s.now.Env)
	for _, p := range pairs {
		i := slices.IndexFunc(env, func(old string) bool { return strings.HasPrefix(old, p[0]+"=") || old == p[0] })
		if i < 0 {
			env = append(env, "")
			i = len(env) - 1
		}
		env[i] = p[0] + "=" + p[1]
	}
	return s.config.Set("Env", env)
}

func (s *setter) label(text string) error {
	pairs, err := s.pairs(text)
	if err != nil {
		return err
	}
	labels, err := s.config.Object("Labels")
	if err != nil {
		return err
	}
	for _, p := range pairs {
		if err := labels.Set(p[0], p[1]); err != nil {
			return err
		}
	}
	return s.config.Set("Labels", labels)
}

// pairs parses NAME=VALUE …, or NAME VALUE to the end of the line.
func (s *setter) pairs(text string) ([][2]string, error) {
	words, err := split(text)
	if err != nil {
		return nil, err
	}
	if !strings.Contains(words[0], "=") {
		name, value := cutWord(text)
		words = []string{name + "=" + value}
		if value == "" {
			return nil, fmt.Errorf("%.200q: want NAME=VALUE", text)
		}
	}
	var pairs [][2]string
	for _, w := range words {
		name, value, ok := strings.Cut(w, "=")
		if !ok {
			return nil, fmt.Errorf("%.200q: want NAME=VALUE", w)
		}
		if name, err = expand(name, s.now.Env); err == nil {
			value, err = expand(value, s.now.Env)
		}
		if err == nil && name == "" {
			err = fmt.Errorf("%.200q: the name is empty", w)
		}
		if err != nil {
			return nil, err
		}
		pairs = append(pairs, [2]string{name, value})
	}
	return pairs, nil
}

// words parses a list of words, each expanded.
func (s *setter) words(text string) ([]string, error) {
	words, err := split(text)
	for i := range words {
		if err == nil {
			words[i], err = expand(words[i], s.now.Env)
		}
	}
	return words, err
}

// one parses a single word, expanded.
func (s *setter) one(text string) (string, error) {
	value, err := expand(text, s.now.Env)
	if err == nil && value == "" {
		err = errors.New("the value is empty")
	}
	return value, err
}

// add adds names to a set, which JSON has as an object of empty objects.
func (s *setter) add(member string, names []string) error {
	set, err := s.config.Object(member)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := set.Set(name, struct{}{}); err != nil {
			return err
		}
	}
	return s.config.Set(member, set)
}

func (s *setter) expose(text string) error {
	words, err := s.words(text)
	if err != nil {
		return err
	}
	var ports []string
	for _, w := range words {
		span, protocol, ok := strings.Cut(w, "/")
		if !ok {
			protocol = "tcp"
		}
		protocol = strings.ToLower(protocol)
		first, last, isRange := strings.Cut(span, "-")
		if !isRange {
			last = first
		}
		from, err1 := strconv.ParseUint(first, 10, 16)
		to, err2 := strconv.ParseUint(last, 10, 16)
		if err1 != nil || err2 != nil || from == 0 || to < from || protocol != "tcp" && protocol != "udp" && protocol != "sctp" {
			return fmt.Errorf("port %.64q: want PORT[-PORT][/tcp|/udp|/sctp]", w)
		}
		for port := from; port <= to; port++ {
			ports = append(ports, fmt.Sprintf("%d/%s", port, protocol))
		}
	}
	return s.add("ExposedPorts", ports)
}

func (s *setter) volume(text string) error {
	list, ok := jsonList(text)
	var err error
	if !ok {
		list, err = s.words(text)
	}
	if err == nil && slices.Contains(list, "") {
		err = errors.New("the name of a volume is empty")
	}
	if err != nil {
		return err
	}
	return s.add("Volumes", list)
}

func (s *setter) user(text string) error {
	value, err := s.one(text)
	if err != nil {
		return err
	}
	return s.config.Set("User", value)
}

func (s *setter) workdir(text string) error {
	value, err := s.one(text)
	if err != nil {
		return err
	}
	if !path.IsAbs(value) {
		value = path.Join("/", s.now.WorkingDir, value)
	}
	return s.config.Set("WorkingDir", path.Clean(value))
}

func (s *setter) stopSignal(text string) error {
	value, err := s.one(text)
	if err == nil && strings.ContainsAny(value, " \t") {
		err = errors.New("want one signal, by name or number")
	}
	if err != nil {
		return err
	}
	return s.config.Set("StopSignal", value)
}

func (s *setter) onbuild(text string) error {
	word, _ := cutWord(text)
	switch strings.ToUpper(word) {
	case "ONBUILD", "FROM", "MAINTAINER":
		return fmt.Errorf("%s cannot be an instruction of ONBUILD", strings.ToUpper(word))
	}
	list, err := s.config.Array("OnBuild")
	if err != nil {
		return err
	}
	raw, err := rawjson.Marshal(text)
	if err != nil {
		return err
	}
	return s.config.Set("OnBuild", append(slices.Clone(list), raw))
}

// healthcheck is Docker's Healthcheck; durations are in nanoseconds.
type healthcheck struct {
	Test          []string
	Interval      time.Duration `json:",omitempty"`
	Timeout       time.Duration `json:",omitempty"`
	StartPeriod   time.Duration `json:",omitempty"`
	StartInterval time.Duration `json:",omitempty"`
	Retries       int           `json:",omitempty"`
}

func (s *setter) healthcheck(text string) error {
	var h healthcheck
	for strings.HasPrefix(text, "--") {
		var option string
		option, text = cutWord(text)
		if err := h.option(option); err != nil {
			return err
		}
	}
	word, rest := cutWord(text)
	switch strings.ToUpper(word) {
	case "NONE":
		if rest != "" || h.Interval+h.Timeout+h.StartPeriod+h.StartInterval != 0 || h.Retries != 0 {
			return errors.New("NONE takes nothing beside it")
		}
		h.Test = []string{"NONE"}
	case "CMD":
		if list, ok := jsonList(rest); ok && len(list) > 0 {
			h.Test = append([]string{"CMD"}, list...)
		} else if rest != "" && !ok {
			h.Test = []string{"CMD-SHELL", rest}
		} else {
			return errors.New("CMD needs a command")
		}
	default:
		return fmt.Errorf("%.64q: want NONE or CMD", word)
	}
	return s.config.Set("Healthcheck", h)
}

// option parses an option of HEALTHCHECK.
func (h *healthcheck) option(text string) error {
	name, value, _ := strings.Cut(text, "=")
	if name == "--retries" {
		n, err := strconv.ParseUint(value, 10, 31)
		if err != nil {
			return fmt.Errorf("%.64q: want a number", text)
		}
		h.Retries = int(n)
		return nil
	}
	target := map[string]*time.Duration{"--interval": &h.Interval, "--timeout": &h.Timeout, "--start-period": &h.StartPeriod,
		"--start-interval": &h.StartInterval}[name]
	if target == nil {
		return fmt.Errorf("option %.64q is unknown", name)
	}
	d, err := time.ParseDuration(value)
	if err != nil || d != 0 && d < time.Millisecond {
		return fmt.Errorf("%.64q: want a duration of at least 1ms, as in 30s", text)
	}
	*target = d
	return nil
}
