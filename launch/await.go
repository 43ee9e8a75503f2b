package launch

import (
	"context"
	"errors"
	"time"

	"servent/admin"
	"servent/system"
)

const doorWait = 15 * time.Second // that the admin door may take to open

// Await returns a client as soon as the folder's system answers. ended receives when who runs it ends.
func (f Folder) Await(ctx context.Context, ended <-chan error) (*admin.Client, error) {
	late := time.After(doorWait)
	for {
		if client, ok := f.Answers(ctx); ok {
			return client, nil
		}
		select {
		case err := <-ended:
			if err == nil {
				err = &system.Hint{Err: errors.New("the system ended at once"), Next: "cat " + f.Log("laptop")}
			}
			return nil, err
		case <-late:
			return nil, &system.Hint{Err: errors.New("the admin door did not open"), Next: "cat " + f.Log("laptop")}
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Answers says whether a system answers in the folder.
func (f Folder) Answers(ctx context.Context) (*admin.Client, bool) {
	client, err := f.Client()
	if err != nil {
		return nil, false
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err = client.State(ctx)
	return client, err == nil
}
