package archive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/image/internal/rawjson"
	"github.com/tare-oci/tare/image/internal/spool"
	"github.com/tare-oci/tare/image/layer"
)

// maxLegacyLayer bounds the temporary file of one uncompressed layer, in bytes.
const maxLegacyLayer = 1 << 40

// v1Members are the members of a layer's json file, in Docker's order, after id and parent. All are of the image's config.
var v1Members = []string{"comment", "created", "container", "container_config", "docker_version", "author", "config",
	"architecture", "variant", "os"}

// configMembers are those of config and container_config in Docker's order, with what Docker writes for one that is not there.
var configMembers = []struct{ name, absent string }{
	{"Hostname", `""`}, {"Domainname", `""`}, {"User", `""`}, {"AttachStdin", "false"}, {"AttachStdout", "false"},
	{"AttachStderr", "false"}, {"ExposedPorts", ""}, {"Tty", "false"}, {"OpenStdin", "false"}, {"StdinOnce", "false"},
	{"Env", "null"}, {"Cmd", "null"}, {"Healthcheck", ""}, {"ArgsEscaped", ""}, {"Image", `""`}, {"Volumes", "null"},
	{"WorkingDir", `""`}, {"Entrypoint", "null"}, {"NetworkDisabled", ""}, {"MacAddress", ""}, {"OnBuild", "null"},
	{"Labels", "null"}, {"StopSignal", ""}, {"StopTimeout", ""}, {"Shell", ""},
}

// finishLegacy adds what docker save wrote before version 25.
func (s *saver) finishLegacy() error {
	if len(s.docker) == 0 {
		return errors.New("there is no container image, and the legacy format has nothing else")
	}
	records := make([]dockerRecord, len(s.docker))
	tops := map[*savedImage]string{}
	files := map[digest.Digest]string{} // layer.tar by diff ID
	for i, img := range s.docker {
		name := img.manifest.Config.Digest.Encoded() + ".json"
		s.members.bytes(name, img.configRaw)
		records[i] = dockerRecord{Config: name, RepoTags: orNil(img.tags), Layers: []string{}}
		ids, err := s.legacyLayers(img, files)
		if err != nil {
			return err
		}
		for _, id := range ids {
			records[i].Layers = append(records[i].Layers, id+"/layer.tar")
			tops[img] = id
		}
	}
	return s.dockerFiles(records, func(img *savedImage) string { return tops[img] })
}

// legacyLayers adds the directories of an image's layers and returns their ids, the lowest first.
func (s *saver) legacyLayers(img *savedImage, files map[digest.Digest]string) ([]string, error) {
	config, err := rawjson.Parse(img.configRaw)
	if err != nil {
		return nil, err
	}
	var ids []string
	parent := ""
	for i, diffID := range img.config.RootFS.DiffIDs {
		above := &rawjson.Object{}
		if i == len(img.config.RootFS.DiffIDs)-1 {
			above = config
		}
		id, text, err := legacyJSON(above, img.config.OS, identity.ChainID(img.config.RootFS.DiffIDs[:i+1]), parent)
		if err != nil {
			return nil, err
		}
		s.members.bytes(id+"/VERSION", []byte("1.0"))
		s.members.bytes(id+"/json", text)
		name := id + "/layer.tar"
		switch first, ok := files[diffID]; {
		case !ok:
			files[diffID] = name
			s.members[name] = plainLayer(img.source, img.manifest.Layers[i], diffID)
		case first != name:
			s.members[name] = tarMember{link: "../" + first}
		}
		ids, parent = append(ids, id), id
	}
	return ids, nil
}

// legacyJSON returns the id that a layer has in Docker's first image format, and its json file. The id is the digest of what the
// file says without the id, of the layer's chain ID and of the parent's id. config is empty for layers below the topmost; for
// these Docker adds the operating system only after it has computed the id.
func legacyJSON(config *rawjson.Object, system string, chainID digest.Digest, parent string) (id string, text []byte, err error) {
	members := map[string]any{"created": json.RawMessage(`"0001-01-01T00:00:00Z"`)}
	if config.Len() == 0 {
		members["created"] = json.RawMessage(`"1970-01-01T00:00:00Z"`)
	}
	for _, name := range v1Members {
		raw := config.Get(name)
		if raw != nil && string(raw) != `""` {
			members[name] = raw
		}
		if name == "container_config" || name == "config" && raw != nil {
			if members[name], err = dockerConfig(raw); err != nil {
				return "", nil, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	hashed := map[string]any{"layer_id": chainID}
	maps.Copy(hashed, members)
	if parent != "" {
		hashed["parent"] = digest.NewDigestFromEncoded(digest.SHA256, parent)
	}
	sorted, err := json.Marshal(hashed)
	if err != nil {
		return "", nil, err
	}
	id = digest.FromBytes(sorted).Encoded()
	if members["os"] == nil {
		members["os"] = system
	}
	file := &rawjson.Object{}
	err = file.Set("id", id)
	if parent != "" && err == nil {
		err = file.Set("parent", parent)
	}
	for _, name := range v1Members {
		if value, ok := members[name]; ok && err == nil {
			err = file.Set(name, value)
		}
	}
	if err == nil {
		text, err = json.Marshal(file)
	}
	return id, text, err
}

// dockerConfig returns the object raw, or an empty one, with its members in Docker's order and with those that Docker always
// writes. What Docker does not know comes last.
func dockerConfig(raw json.RawMessage) (*rawjson.Object, error) {
	in := &rawjson.Object{}
	if raw != nil {
		var err error
		if in, err = rawjson.Parse(raw); err != nil {
			return nil, err
		}
	}
	out := &rawjson.Object{}
	for _, m := range configMembers {
		value := in.Get(m.name)
		if value == nil {
			value = json.RawMessage(m.absent)
		}
		if len(value) > 0 {
			if err := out.Set(m.name, value); err != nil {
				return nil, err
			}
		}
		in.Delete(m.name)
	}
	for _, name := range in.Names() {
		if err := out.Set(name, in.Get(name)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// plainLayer returns the layer d without compression. Its size is known when it was read: it is kept in a temporary file.
func plainLayer(source content.Source, d v1.Descriptor, diffID digest.Digest) tarMember {
	var tmp *os.File
	return tarMember{
		prepare: func(ctx context.Context) (size int64, err error) {
			tmp, size, err = plain(ctx, source, d, diffID)
			return size, err
		},
		open: func(context.Context) (io.ReadCloser, error) { return tmp, nil },
	}
}

// plain writes the uncompressed layer d, verified, to a temporary file without a name, at whose beginning it is.
func plain(ctx context.Context, source content.Source, d v1.Descriptor, diffID digest.Digest) (*os.File, int64, error) {
	r, err := source.Fetch(ctx, d, 0)
	if err != nil {
		return nil, 0, err
	}
	defer r.Close()
	checked, err := content.Verify(contextReader{ctx, r}, d)
	if err != nil {
		return nil, 0, err
	}
	stream, _, err := layer.Decompress(checked)
	if err != nil {
		return nil, 0, err
	}
	defer stream.Close()
	tmp, err := spool.New()
	if err != nil {
		return nil, 0, err
	}
	hash := diffID.Algorithm().Hash()
	size, err := io.Copy(tmp, io.TeeReader(io.LimitReader(stream, maxLegacyLayer+1), hash))
	if err == nil && size > maxLegacyLayer {
		err = fmt.Errorf("layer %s is larger than %d bytes, the limit", d.Digest, int64(maxLegacyLayer))
	}
	if err == nil {
		if found := digest.NewDigest(diffID.Algorithm(), hash); found != diffID {
			err = fmt.Errorf("layer %s: content is %s, not %s as the image says", d.Digest, found, diffID)
		}
	}
	if err == nil {
		_, err = tmp.Seek(0, io.SeekStart)
	}
	if err != nil {
		tmp.Close()
		return nil, 0, err
	}
	return tmp, size, nil
}
