package factory

import (
	"context"
	"errors"

	"github.com/meshctl/meshctl/internal/kube"
)

// Connect prepares the connection to the cluster. Its error is one line that says what is missing, and exit code 3.
func (f *Factory) Connect() (*kube.Client, error) {
	client, err := kube.Connect(f.Config)
	if err != nil {
		return nil, &ExitErr{Code: ExitError, Err: err}
	}
	return client, nil
}

// Explain gives an error of talking to the cluster its exit code and, when the cluster was not reached, one plain line.
func (f *Factory) Explain(client *kube.Client, err error) error {
	var exit *ExitErr
	if err == nil || errors.As(err, &exit) || errors.Is(err, context.Canceled) {
		return err
	}
	return &ExitErr{Code: ExitError, Err: client.Explain(err)}
}
