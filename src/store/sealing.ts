// Encryption of one value: AES-256-GCM (NIST SP 800-38D), with the secret's name and the key's id as additional data, so
// that a value which was moved to another name is as wrong as one that was altered.

import { createCipheriv, createDecipheriv, createHmac, createSecretKey, randomBytes, type KeyObject } from 'node:crypto'

export const KEY_BYTES = 32
/** The only length for which GCM takes the nonce as it is (SP 800-38D §5.2.1.1). */
const NONCE_BYTES = 12
const TAG_BYTES = 16
const ALGORITHM = 'aes-256-gcm'

/** A KeyObject shows nothing of itself when it is printed. */
export interface EncryptionKey {
  /** Names the key and tells nothing about it. */
  readonly id: string
  readonly key: KeyObject
}

export interface Sealed {
  readonly keyId: string
  readonly nonce: Uint8Array
  /** The ciphertext and its tag. */
  readonly sealed: Uint8Array
}

/** @param bytes as many as KEY_BYTES */
export function encryptionKey(bytes: Buffer): EncryptionKey {
  const id = createHmac('sha256', bytes).update('berth key id').digest('hex').slice(0, 16)
  return { id, key: createSecretKey(bytes) }
}

/**
 * A nonce at random, never counted: a counter would begin again with a database that was restored. SP 800-38D §8.3 allows
 * 2^32 of them for one key.
 */
export function seal(name: string, value: string, { id, key }: EncryptionKey): Sealed {
  const nonce = randomBytes(NONCE_BYTES)
  const cipher = createCipheriv(ALGORITHM, key, nonce, { authTagLength: TAG_BYTES }).setAAD(boundTo(name, id))
  const sealed = Buffer.concat([cipher.update(value, 'utf8'), cipher.final(), cipher.getAuthTag()])
  return { keyId: id, nonce, sealed }
}

/** Undefined: it was altered, or is not of this name and key. */
export function unseal(name: string, { keyId, nonce, sealed }: Sealed, { key }: EncryptionKey): string | undefined {
  const end = sealed.length - TAG_BYTES
  try {
    // Without the length of the tag Node would take shorter ones.
    const decipher = createDecipheriv(ALGORITHM, key, nonce, { authTagLength: TAG_BYTES })
      .setAAD(boundTo(name, keyId))
      .setAuthTag(sealed.subarray(end))
    return Buffer.concat([decipher.update(sealed.subarray(0, end)), decipher.final()]).toString('utf8')
  } catch {
    return undefined
  }
}

/** No id holds a zero byte, so no two pairs are the same. */
function boundTo(name: string, keyId: string): Buffer {
  return Buffer.from(`berth secret 1\0${keyId}\0${name}`)
}
