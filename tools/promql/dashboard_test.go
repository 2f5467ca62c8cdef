// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package promql

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// files is the chart's folder of alerts and dashboard.
const files = "../../deploy/charts/leasefs/files/"

// Grafana puts a duration in for its own variable before Prometheus sees the expression, and a regular expression for the
// dashboard's, which stand in quotes.
var filledIn = strings.NewReplacer("$__rate_interval", "2m", "$instance", "node-1|node-2", "$connection", ".*")

func TestPrometheusTakesEveryExpressionOfTheDashboard(t *testing.T) {
	data, err := os.ReadFile(files + "dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(data, &dashboard); err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			found++
			t.Run(panel.Title, func(t *testing.T) {
				expr := filledIn.Replace(target.Expr)
				if strings.Contains(expr, "$") {
					t.Errorf("it has a variable that is not known here: %s", expr)
				}
				evaluate(t, expr, nil) // a fault of the expression ends the test
			})
		}
	}
	if found < 20 {
		t.Errorf("only %d expressions were found: has the dashboard's form changed?", found)
	}
}
