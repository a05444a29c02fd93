package mutate

import (
	"errors"
	"fmt"
	"strings"
)

// split takes text apart at white space that is not quoted or escaped. The words keep their quotes. There is at least one word
// unless there is an error.
func split(text string) ([]string, error) {
	var words []string
	var word strings.Builder
	quote, inWord := byte(0), false
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '\\' && quote != '\'' && i+1 < len(text):
			word.WriteByte(c)
			i++
			c = text[i]
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		case c == quote:
			quote = 0
		case quote == 0 && (c == ' ' || c == '\t'):
			if inWord {
				words = append(words, word.String())
				word.Reset()
			}
			inWord = false
			continue
		}
		word.WriteByte(c)
		inWord = true
	}
	if quote != 0 {
		return nil, fmt.Errorf("quote %c has no end", quote)
	}
	if inWord {
		words = append(words, word.String())
	}
	if len(words) == 0 {
		return nil, errors.New("the value is empty")
	}
	return words, nil
}

// expand removes a word's quotes and puts variables' values in: $NAME, ${NAME}, ${NAME:-DEFAULT} and ${NAME:+OTHER}, not between
// single quotes or after a backslash. A variable that is not set is empty.
func expand(word string, env []string) (string, error) {
	var out strings.Builder
	quote := byte(0)
	for i := 0; i < len(word); i++ {
		c := word[i]
		switch {
		case c == '\\' && quote != '\'' && i+1 < len(word):
			i++
			if quote == '"' && !strings.ContainsRune(`"$\`, rune(word[i])) {
				out.WriteByte('\\')
			}
			out.WriteByte(word[i])
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		case c == quote && quote != 0:
			quote = 0
		case c == '$' && quote != '\'':
			value, n, err := variable(word[i+1:], env)
			if err != nil {
				return "", err
			}
			if n == 0 {
				value = "$"
			}
			out.WriteString(value)
			i += n
		default:
			out.WriteByte(c)
		}
	}
	if quote != 0 {
		return "", fmt.Errorf("quote %c has no end", quote)
	}
	return out.String(), nil
}

// variable returns the value of the variable that text begins with, after its $, and how long the name is there. 0: it is none.
func variable(text string, env []string) (value string, n int, err error) {
	if !strings.HasPrefix(text, "{") {
		n = nameLength(text)
		value, _ = lookup(text[:n], env)
		return value, n, nil
	}
	end := strings.IndexByte(text, '}')
	if end < 0 {
		return "", 0, fmt.Errorf("$%.64s: } is missing", text)
	}
	name := text[1 : 1+nameLength(text[1:])]
	value, _ = lookup(name, env)
	rest := text[1+len(name) : end]
	switch {
	case name == "":
		return "", 0, fmt.Errorf("$%.64s: a name is missing", text[:end+1])
	case rest == "":
		return value, end + 1, nil
	case strings.HasPrefix(rest, ":-"):
		if value == "" {
			value = rest[2:]
		}
		return value, end + 1, nil
	case strings.HasPrefix(rest, ":+"):
		if value != "" {
			value = rest[2:]
		}
		return value, end + 1, nil
	}
	return "", 0, fmt.Errorf("$%.64s: %.64q is not supported, only :- and :+ are", text[:end+1], rest)
}

func nameLength(s string) int {
	for i := range len(s) {
		c := s[i]
		if c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (i == 0 || c < '0' || c > '9') {
			return i
		}
	}
	return len(s)
}

func lookup(name string, env []string) (string, bool) {
	for _, e := range env {
		if n, value, ok := strings.Cut(e, "="); ok && n == name {
			return value, true
		}
	}
	return "", false
}
