// Package check judges objects: it is the only place where object rules live.
//
// In: one object (Object), or a set of objects and the ones to speak about (Set). Out: findings. The command line, admission and the control
// plane call the same two functions, so they give the same verdict. Everything is pure.
package check

import (
	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/objects"
)

// Object judges o by itself.
func Object(o *objects.Object) []finding.Finding {
	return nil
}

// Set judges the objects of about among all others: names that nothing has, rules that hide or equal each other. all should contain about.
func Set(all *objects.Set, about []*objects.Object) []finding.Finding {
	return nil
}
