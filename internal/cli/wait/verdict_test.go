package wait

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

func TestWhatAStatusSaysOfAnObject(t *testing.T) {
	const accepted = "{type: Accepted, status: 'True', reason: Accepted, observedGeneration: 2}"
	for name, c := range map[string]struct {
		status string
		want   state
		reason string
	}{
		"no status at all":                        {"{}", pending, "has not judged generation 2 yet"},
		"the status of an earlier generation":     {"{conditions: [{type: Accepted, status: 'True', observedGeneration: 1}, {type: Programmed, status: 'True', observedGeneration: 1}]}", pending, "has not judged generation 2 yet"},
		"every proxy has it":                      {"{conditions: [" + accepted + ", {type: Programmed, status: 'True', reason: Programmed, observedGeneration: 2}]}", distributed, ""},
		"some proxies do not have it yet":         {"{conditions: [" + accepted + ", {type: Programmed, status: 'False', reason: Pending, message: not every one, observedGeneration: 2}]}", pending, "not every one"},
		"there is no proxy":                       {"{conditions: [" + accepted + ", {type: Programmed, status: Unknown, reason: NoProxies, message: none there, observedGeneration: 2}]}", pending, "none there"},
		"half a status, the other half is older":  {"{conditions: [" + accepted + ", {type: Programmed, status: 'True', reason: Programmed, observedGeneration: 1}]}", pending, "has not judged"},
		"nothing was made of it, as findings say": {"{conditions: [" + accepted + ", {type: Programmed, status: 'False', reason: NotInForce, message: m, observedGeneration: 2}], findings: [{code: M0202, severity: warning, field: spec.destination, message: no HTTP port, hint: name it}]}", refused, "M0202: spec.destination: no HTTP port (name it)"},
		"a proxy refused it": {"{conditions: [" + accepted + ", {type: Programmed, status: 'False', reason: ProxyRejected, message: m, observedGeneration: 2}], findings: [{code: M0301, severity: error, message: 'proxy default/a: no'}, {code: M0301, severity: error, message: 'proxy default/b: never'}, {code: M0201, severity: warning, message: beside the point}]}",
			refused, "2 reasons\n  M0301: proxy default/a: no\n  M0301: proxy default/b: never"},
		"what it is part of was refused for another's sake": {"{conditions: [" + accepted + ", {type: Programmed, status: 'False', reason: SharedConfigurationRejected, message: shared, observedGeneration: 2}], findings: [{code: M0201, severity: warning, message: beside the point}]}", refused, "shared"},
		"it is invalid": {"{conditions: [{type: Accepted, status: 'False', reason: Invalid, message: m, observedGeneration: 2}, {type: Programmed, status: 'False', reason: Invalid, message: m, observedGeneration: 2}], findings: [{code: M0103, severity: error, message: weights}]}", refused, "the control plane refuses it: M0103: weights"},
	} {
		t.Run(name, func(t *testing.T) {
			u := &unstructured.Unstructured{}
			if err := yaml.Unmarshal([]byte("status: "+c.status), &u.Object); err != nil {
				t.Fatal(err)
			}
			u.SetGeneration(2)
			got := judge(u)
			if got.state != c.want || !strings.Contains(got.reason, c.reason) || c.reason == "" && got.reason != "" {
				t.Errorf("got %v %q, want %v %q", got.state, got.reason, c.want, c.reason)
			}
		})
	}
}
