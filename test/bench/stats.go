package main

import (
	"slices"
	"time"
)

// quantile returns the value below which the share q of the sorted values lies, by linear interpolation. There must be a value.
func quantile(sorted []time.Duration, q float64) time.Duration {
	at := q * float64(len(sorted)-1)
	i := int(at)
	if i+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[i] + time.Duration((at-float64(i))*float64(sorted[i+1]-sorted[i]))
}

// median returns the middle of the values, of which there must be one.
func median(values []time.Duration) time.Duration {
	return quantile(slices.Sorted(slices.Values(values)), 0.5)
}

// summary is what the report says about the samples of one action.
type summary struct{ median, p10, p90, cpu time.Duration }

func summarize(samples []sample) summary {
	var wall, cpu []time.Duration
	for _, s := range samples {
		wall, cpu = append(wall, s.wall), append(cpu, s.cpu)
	}
	slices.Sort(wall)
	slices.Sort(cpu)
	return summary{quantile(wall, 0.5), quantile(wall, 0.1), quantile(wall, 0.9), quantile(cpu, 0.5)}
}
