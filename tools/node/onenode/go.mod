// The program that starts and stops the one-node Kubernetes of the end-to-end tests.
module github.com/leasefs/leasefs/tools/node/onenode

go 1.26.8
