package store

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"
)

// The bounds of the vault.
const (
	maxSecrets     = 1024
	maxSecretBytes = 4096
	keyVault       = "hotline:{vault}:secrets"
)

// What the vault refuses.
var (
	ErrVaultFull = errors.New("store: the vault is full")
	// ErrVaultKey says that a secret was sealed with another key, or altered.
	ErrVaultKey = errors.New("store: the secret does not open with this node's key; give all nodes the same nodes.secret_file")
)

// Vault keeps secrets that all nodes must have alike, sealed with a key that Redis never sees.
//
//	hotline:{vault}:secrets  hash  name -> nonce and AES-256-GCM of the secret, the name authenticated
type Vault struct {
	client redis.UniversalClient
	agree  *redis.Script
	aead   cipher.AEAD
}

// NewVault makes a vault that is sealed with a key of 32 bytes.
func NewVault(s *Store, key []byte) (*Vault, error) {
	if len(key) != 32 {
		return nil, fmt.Errorf("store: the vault's key has %d bytes; it needs 32", len(key))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("store: the vault: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("store: the vault: %w", err)
	}
	return &Vault{client: s.Blocking(), agree: s.own("vault_agree"), aead: aead}, nil
}

// Agree offers a secret under a name and returns the one that all nodes use: that of the node which was first.
// Redis may lose it, as any write, in a failover: who needs it for long keeps what was agreed and offers it
// again.
func (v *Vault) Agree(ctx context.Context, name string, fresh []byte) ([]byte, error) {
	if name == "" || len(name) > 256 || len(fresh) > maxSecretBytes {
		return nil, fmt.Errorf("store: secret %q of %d bytes: a name has 1 to 256, a secret at most %d", name, len(fresh), maxSecretBytes)
	}
	sealed := v.aead.Seal(nil, nil, fresh, []byte(name))
	kept, err := v.agree.Run(ctx, v.client, []string{keyVault}, name, sealed, maxSecrets).Text()
	if err != nil {
		return nil, fmt.Errorf("agree on secret %q: %w", name, named(err, "VAULTFULL", ErrVaultFull))
	}
	agreed, err := v.aead.Open(nil, nil, []byte(kept), []byte(name))
	if err != nil {
		return nil, fmt.Errorf("agree on secret %q: %w", name, ErrVaultKey)
	}
	return agreed, nil
}

// Forget takes a secret out; that it is not there is no error.
func (v *Vault) Forget(ctx context.Context, name string) error {
	if err := v.client.HDel(ctx, keyVault, name).Err(); err != nil {
		return fmt.Errorf("forget secret %q: %w", name, err)
	}
	return nil
}
