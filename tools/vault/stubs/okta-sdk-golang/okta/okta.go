// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

// Package okta stands in for the Okta SDK, one package of 12 MB that Vault needs for one of its second factors
// (login MFA by Okta push). No test uses that factor. Only the names Vault refers to are here, and NewConfiguration,
// the first thing Vault calls, returns an error; so does every request after it.
package okta

import (
	"context"
	"errors"
)

var errStub = errors.New("Okta MFA is not compiled into this test build of Vault")

// Configuration of a client. It is never in use.
type Configuration struct{ Context context.Context }

// ConfigSetter sets one value of a Configuration.
type ConfigSetter func(*Configuration)

// NewConfiguration always fails.
func NewConfiguration(...ConfigSetter) (*Configuration, error) { return nil, errStub }

// WithToken does nothing.
func WithToken(string) ConfigSetter { return func(*Configuration) {} }

// WithOrgUrl does nothing; its spelling is the SDK's.
func WithOrgUrl(string) ConfigSetter { return func(*Configuration) {} }

// WithCache does nothing.
func WithCache(bool) ConfigSetter { return func(*Configuration) {} }

// APIClient is a client whose every request fails.
type APIClient struct {
	UserAPI       UserAPI
	UserFactorAPI UserFactorAPI
}

// NewAPIClient returns a client whose every request fails.
func NewAPIClient(*Configuration) *APIClient { return &APIClient{} }

// GetConfig returns a Configuration with a context that is never nil.
func (*APIClient) GetConfig() *Configuration { return &Configuration{Context: context.Background()} }

// Request is the form every call of the SDK has: built step by step, then executed.
type Request[T any] struct{}

// Filter returns the request as it is.
func (r Request[T]) Filter(string) Request[T] { return r }

// Execute always fails. The second result is the SDK's HTTP response.
func (Request[T]) Execute() (result T, response any, err error) { return result, nil, errStub }

// UserAPI is the SDK's group of calls for users.
type UserAPI struct{}

// ListUsers fails when executed.
func (UserAPI) ListUsers(context.Context) Request[[]User] { return Request[[]User]{} }

// UserFactorAPI is the SDK's group of calls for second factors.
type UserFactorAPI struct{}

// ListFactors fails when executed.
func (UserFactorAPI) ListFactors(context.Context, string) Request[[]Factor] {
	return Request[[]Factor]{}
}

// VerifyFactor fails when executed.
func (UserFactorAPI) VerifyFactor(context.Context, string, string) Request[*Verify] {
	return Request[*Verify]{}
}

// GetFactorTransactionStatus fails when executed.
func (UserFactorAPI) GetFactorTransactionStatus(context.Context, string, string, string) Request[*Status] {
	return Request[*Status]{}
}

// User is one of Okta's users.
type User struct{}

// GetId returns nothing; its spelling is the SDK's.
func (User) GetId() string { return "" }

// Factor is one of a user's second factors.
type Factor struct{ UserFactorPush *UserFactorPush }

// UserFactorPush is the second factor that asks on a telephone.
type UserFactorPush struct{}

// GetId returns nothing; its spelling is the SDK's.
func (*UserFactorPush) GetId() string { return "" }

// Verify is the answer to a started verification.
type Verify struct{ Links map[string]any }

// GetFactorResult returns nothing.
func (*Verify) GetFactorResult() string { return "" }

// Status is how far a verification is: one of the fields is set.
type Status struct {
	UserFactorPushTransaction         *struct{}
	UserFactorPushTransactionRejected *struct{}
	UserFactorPushTransactionTimeout  *struct{}
	UserFactorPushTransactionWaiting  *struct{}
}
