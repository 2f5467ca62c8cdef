// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

func seconds(n int) time.Duration { return time.Duration(n) * time.Second }

// sheet collects rows and prints them aligned, as Markdown.
type sheet struct{ rows [][]string }

func newSheet(heads ...string) *sheet { return &sheet{rows: [][]string{heads}} }

func (t *sheet) row(cells ...any) {
	row := make([]string, len(cells))
	for i, c := range cells {
		switch c := c.(type) {
		case time.Duration:
			row[i] = fmt.Sprintf("%.2f ms", float64(c)/float64(time.Millisecond))
		case float64:
			row[i] = strconv.FormatFloat(c, 'f', -1, 64)
		default:
			row[i] = fmt.Sprint(c)
		}
	}
	t.rows = append(t.rows, row)
}

func (t *sheet) print() {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 1, ' ', 0)
	for i, row := range t.rows {
		_, _ = fmt.Fprintf(w, "| %s\t|\n", strings.Join(row, "\t| "))
		if i == 0 {
			_, _ = fmt.Fprintf(w, "|%s\n", strings.Repeat(" ---\t|", len(row)))
		}
	}
	_ = w.Flush()
}

// quantile is the q-th of the measurements; 0 is the least of them.
func quantile(ds []time.Duration, q float64) time.Duration {
	sorted := slices.Sorted(slices.Values(ds))
	return sorted[int(math.Round(q*float64(len(sorted)-1)))]
}

func ratio(a, b time.Duration) string { return fmt.Sprintf("%.2f", float64(a)/float64(b)) }

func perSecond(n int, d time.Duration) string { return fmt.Sprintf("%.0f", float64(n)/d.Seconds()) }

func mib(bytes float64) string { return fmt.Sprintf("%.1f MiB", bytes/(1<<20)) }

func verdict(good bool, target string) string {
	if good {
		return "met: " + target
	}
	return "MISSED: " + target
}

// metric is the sum of a metric's series; name may be one series with its labels.
func (n *node) metric(ctx context.Context, name string) (float64, error) {
	text, err := n.driver.Metrics(ctx)
	if err != nil {
		return 0, err
	}
	return sum(text, name), nil
}

// sum adds up the series of a metric in Prometheus' text format.
func sum(text, name string) float64 {
	total := 0.0
	for line := range strings.Lines(text) {
		series, value, ok := strings.Cut(strings.TrimSpace(line), "} ")
		if ok {
			series += "}"
		} else if series, value, ok = strings.Cut(strings.TrimSpace(line), " "); !ok {
			continue
		}
		if series != name && !strings.HasPrefix(series, name+"{") {
			continue
		}
		if v, err := strconv.ParseFloat(value, 64); err == nil {
			total += v
		}
	}
	return total
}

// buckets is a histogram: counts of observations up to each bound.
type buckets struct{ bounds, counts []float64 }

func bucketsOf(text, name string) buckets {
	var b buckets
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), name+`_bucket{le="`)
		if !ok {
			continue
		}
		bound, count, ok := strings.Cut(rest, `"} `)
		if !ok {
			continue
		}
		le, err1 := strconv.ParseFloat(bound, 64)
		n, err2 := strconv.ParseFloat(count, 64)
		if err1 == nil && err2 == nil {
			b.bounds, b.counts = append(b.bounds, le), append(b.counts, n)
		}
	}
	return b
}

// at is the least bound below which a share of the observations lies.
func (b buckets) at(share float64) string {
	if len(b.counts) == 0 {
		return "nothing observed"
	}
	total := b.counts[len(b.counts)-1]
	for i, n := range b.counts {
		if n >= share*total {
			return strconv.FormatFloat(b.bounds[i], 'f', -1, 64) + " s"
		}
	}
	return "more"
}
