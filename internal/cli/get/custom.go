package get

import (
	"fmt"
	"io"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/util/jsonpath"

	"github.com/meshctl/meshctl/internal/cli/factory"
)

// customColumns prints HEADER:path,... as kubectl does.
type customColumns struct {
	header []string
	paths  []*jsonpath.JSONPath
	bare   bool
}

func newCustomColumns(spec string, bare bool) (*customColumns, error) {
	c := &customColumns{bare: bare}
	for _, part := range strings.Split(spec, ",") {
		name, text, ok := strings.Cut(part, ":")
		if !ok || name == "" || text == "" {
			return nil, factory.Usage("-o custom-columns: %q is not HEADER:path, as in NAME:.metadata.name", part)
		}
		path, err := parsePath(text)
		if err != nil {
			return nil, factory.Usage("-o custom-columns: %s: %w", part, err)
		}
		c.header = append(c.header, name)
		c.paths = append(c.paths, path)
	}
	return c, nil
}

// PrintObj prints one object, or each of a list.
func (c *customColumns) PrintObj(obj runtime.Object, w io.Writer) error {
	var objs []*unstructured.Unstructured
	if meta.IsListType(obj) {
		if err := meta.EachListItem(obj, func(item runtime.Object) error {
			u, ok := item.(*unstructured.Unstructured)
			if !ok {
				return fmt.Errorf("printing columns of a %T", item)
			}
			objs = append(objs, u)
			return nil
		}); err != nil {
			return err
		}
	} else if u, ok := obj.(*unstructured.Unstructured); ok {
		objs = append(objs, u)
	}
	var rows [][]string
	for _, u := range objs {
		var row []string
		for _, path := range c.paths {
			cell := value(path, u)
			if cell == "" {
				cell = "<none>"
			}
			row = append(row, cell)
		}
		rows = append(rows, row)
	}
	header := c.header
	if c.bare {
		header = nil
	}
	return factory.Table(w, header, rows)
}
