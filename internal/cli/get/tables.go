package get

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/meshctl/meshctl/internal/api/v1alpha2"
	"github.com/meshctl/meshctl/internal/cli/factory"
	"github.com/meshctl/meshctl/internal/cli/write"
)

// cells are the server's columns and the cells of each object in them.
type cells struct {
	columns map[string][]metav1.TableColumnDefinition
	rows    map[*unstructured.Unstructured][]string
}

func isMesh(u *unstructured.Unstructured) bool {
	return u.GroupVersionKind().Group == v1alpha2.GroupVersion.Group
}

// group is the kind by which objects share a table.
func group(u *unstructured.Unstructured) string { return u.GroupVersionKind().GroupKind().String() }

// add takes a server's table apart.
func (c *cells) add(table *unstructured.Unstructured) []*unstructured.Unstructured {
	columns := columnsOf(table)
	rows, _ := table.Object["rows"].([]any)
	var found []*unstructured.Unstructured
	for _, r := range rows {
		row, _ := r.(map[string]any)
		object, ok := row["object"].(map[string]any)
		if !ok {
			continue
		}
		u := &unstructured.Unstructured{Object: object}
		values, _ := row["cells"].([]any)
		for _, v := range values {
			if v == nil {
				v = nothing
			}
			c.rows[u] = append(c.rows[u], fmt.Sprint(v))
		}
		c.columns[group(u)] = columns
		found = append(found, u)
	}
	return found
}

func columnsOf(table *unstructured.Unstructured) []metav1.TableColumnDefinition {
	var t metav1.Table
	head := map[string]any{"columnDefinitions": table.Object["columnDefinitions"]}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(head, &t); err != nil {
		return nil // a server whose columns cannot be read still names its objects
	}
	return t.ColumnDefinitions
}

// tables prints one table a kind, in the order the kinds came.
func (o *options) tables(found []*unstructured.Unstructured, parts *cells) error {
	if *o.format.OutputFormat == "short" {
		return o.short(found)
	}
	var kinds []string
	byKind := map[string][]*unstructured.Unstructured{}
	for _, u := range found {
		k := group(u)
		if !slices.Contains(kinds, k) {
			kinds = append(kinds, k)
		}
		byKind[k] = append(byKind[k], u)
	}
	for n, k := range kinds {
		if n > 0 {
			fmt.Fprintln(o.f.Out)
		}
		header, rows := o.table(byKind[k], parts, len(kinds) > 1)
		if o.noHeaders {
			header = nil
		}
		if err := factory.Table(o.f.Out, header, rows); err != nil {
			return err
		}
	}
	return nil
}

// table is the header and rows of objects of one kind; with prefix, names carry the kind.
func (o *options) table(objs []*unstructured.Unstructured, parts *cells, prefix bool) (header []string, rows [][]string) {
	own, ours := layouts()[objs[0].GetKind()]
	ours = ours && isMesh(objs[0])
	for _, u := range objs {
		name := u.GetName()
		if prefix {
			name = write.Resource(u)
		}
		row := []string{name}
		if o.allNamespaces {
			row = []string{u.GetNamespace(), name}
		}
		if ours {
			middle := own.cells(u, o.wide())
			row = append(row, middle[:len(own.columns)]...)
			row = append(row, age(u))
			row = append(row, middle[len(own.columns):]...)
		} else {
			row = append(row, o.serverCells(parts.rows[u], parts.columns[group(u)])...)
		}
		rows = append(rows, row)
	}
	header = []string{"NAME"}
	if o.allNamespaces {
		header = []string{"NAMESPACE", "NAME"}
	}
	if ours {
		header = append(append(header, own.columns...), "AGE")
		if o.wide() {
			header = append(header, own.wide...)
		}
		return header, rows
	}
	for _, c := range parts.columns[group(objs[0])] {
		if o.shown(c) {
			header = append(header, strings.ToUpper(c.Name))
		}
	}
	return header, rows
}

// shown says whether a server's column is printed beside the name.
func (o *options) shown(c metav1.TableColumnDefinition) bool {
	return c.Format != "name" && (c.Priority == 0 || o.wide())
}

func (o *options) serverCells(row []string, columns []metav1.TableColumnDefinition) []string {
	var out []string
	for n, c := range columns {
		if o.shown(c) && n < len(row) {
			out = append(out, row[n])
		}
	}
	return out
}

// short is 0.2's table: tab-separated name, kind with version and group, namespace.
func (o *options) short(found []*unstructured.Unstructured) error {
	if !o.noHeaders {
		fmt.Fprintln(o.f.Out, "NAME\tKIND\tNAMESPACE")
	}
	for _, u := range found {
		gvk := u.GroupVersionKind()
		kind := gvk.Kind + "." + gvk.Version
		if gvk.Group != "" {
			kind += "." + gvk.Group
		}
		fmt.Fprintf(o.f.Out, "%s\t%s\t%s\n", u.GetName(), kind, u.GetNamespace())
	}
	return nil
}
