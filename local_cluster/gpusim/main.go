// Command gpusim offers simulated GPUs to a kubelet, by the same device-plugin protocol as the real ones.
//
// Requests, assignment to containers and the kubelet's pod-resources API are real; only the silicon is missing. A container
// that is given devices sees their UUIDs in NVIDIA_VISIBLE_DEVICES, as with NVIDIA's plugin, and DATAHALL_SIMULATED_GPU=1,
// which tells the trainer to compute on the CPU.
//
// The kubelet forgets its plugins when it restarts and deletes their sockets: a plugin has to notice that and register
// again. Here the socket is looked at every second; a file watch would save nothing worth having.
package main

import (
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	plugin "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

const endpoint = "datahall-gpusim.sock"

// simulator is the plugin: a fixed list of healthy devices, and streams that end with `done`.
type simulator struct {
	plugin.UnimplementedDevicePluginServer
	devices []*plugin.Device
	done    chan struct{}
}

func (s *simulator) GetDevicePluginOptions(context.Context, *plugin.Empty) (*plugin.DevicePluginOptions, error) {
	return &plugin.DevicePluginOptions{}, nil
}

// ListAndWatch sends the list once: nothing here ever breaks. The stream has to stay open, or the devices count as gone.
func (s *simulator) ListAndWatch(_ *plugin.Empty, stream plugin.DevicePlugin_ListAndWatchServer) error {
	if err := stream.Send(&plugin.ListAndWatchResponse{Devices: s.devices}); err != nil {
		return err
	}
	select {
	case <-s.done:
	case <-stream.Context().Done():
	}
	return nil
}

func (s *simulator) Allocate(_ context.Context, request *plugin.AllocateRequest) (*plugin.AllocateResponse, error) {
	response := &plugin.AllocateResponse{}
	for _, container := range request.ContainerRequests {
		response.ContainerResponses = append(response.ContainerResponses, &plugin.ContainerAllocateResponse{
			Envs: map[string]string{
				"NVIDIA_VISIBLE_DEVICES": strings.Join(container.DevicesIds, ","),
				"DATAHALL_SIMULATED_GPU": "1",
			},
		})
	}
	return response, nil
}

// uuid looks like a GPU's and is always the same for the same node and slot.
func uuid(node string, slot int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%d", node, slot))
	return fmt.Sprintf("GPU-%x-%x-%x-%x-%x", sum[0:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}

// serve runs the plugin until the kubelet's folder is emptied, which is how a restarting kubelet says goodbye.
func serve(folder, resource string, devices []*plugin.Device) error {
	socket := filepath.Join(folder, endpoint)
	if err := os.Remove(socket); err != nil && !os.IsNotExist(err) {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	simulator := &simulator{devices: devices, done: make(chan struct{})}
	plugin.RegisterDevicePluginServer(server, simulator)
	go func() { _ = server.Serve(listener) }()
	defer func() { close(simulator.done); server.Stop() }()

	if err := register(filepath.Join(folder, filepath.Base(plugin.KubeletSocket)), resource); err != nil {
		return err
	}
	log.Printf("registered %d x %s", len(devices), resource)
	for {
		time.Sleep(time.Second)
		if _, err := os.Stat(socket); err != nil {
			return fmt.Errorf("the kubelet restarted (%w)", err)
		}
	}
}

func register(kubelet, resource string) error {
	connection, err := grpc.NewClient("unix://"+kubelet, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err = plugin.NewRegistrationClient(connection).Register(ctx, &plugin.RegisterRequest{
		Version:      plugin.Version,
		Endpoint:     endpoint,
		ResourceName: resource,
		Options:      &plugin.DevicePluginOptions{},
	})
	return err
}

func main() {
	folder := flag.String("folder", plugin.DevicePluginPath, "folder of the kubelet's device-plugin sockets")
	resource := flag.String("resource", "nvidia.com/gpu", "name of the extended resource")
	count := flag.Int("count", 8, "number of devices")
	node := flag.String("node", "", "name of the node; part of what the UUIDs are made from")
	flag.Parse()

	devices := make([]*plugin.Device, *count)
	for slot := range devices {
		devices[slot] = &plugin.Device{ID: uuid(*node, slot), Health: plugin.Healthy}
	}
	for {
		err := serve(*folder, *resource, devices)
		log.Printf("registering again: %v", err)
		time.Sleep(200 * time.Millisecond)
	}
}
