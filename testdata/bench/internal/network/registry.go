package network

import "github.com/imgfs/imgfs/testdata/labimage"

// push copies an image into the registry, byte for byte, and past the proxy.
func (b *bench) push(img *image) error {
	_, err := b.output(b.ctx, "skopeo", "--insecure-policy", "copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false",
		"oci:"+img.Layout+":"+labimage.Tag, "docker://"+b.registry+"/"+img.name)
	return err
}

// near names an image in the registry itself, far by way of the proxy.
func (b *bench) near(img *image) string { return b.registry + "/" + img.name }

func (b *bench) far(img *image) string { return b.proxy.host + "/" + img.name }
