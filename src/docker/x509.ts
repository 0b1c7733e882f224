// Makes X.509 certificates (RFC 5280), the three kinds that an engine behind TLS needs: Node reads and verifies
// certificates but makes none, and the libraries for it bring twenty packages along.

import { createHash, createPublicKey, randomBytes, sign, type KeyObject } from 'node:crypto'
import { isIP } from 'node:net'

export interface Certificate {
  readonly commonName: string
  readonly publicKey: KeyObject
  readonly issuer: { readonly commonName: string; readonly privateKey: KeyObject }
  readonly notBefore: Date
  readonly notAfter: Date
  /** What it may be used for; a server's names are host names and IP addresses. */
  readonly use: 'authority' | 'client' | { readonly names: readonly string[] }
}

const BOOLEAN = 0x01
const INTEGER = 0x02
const BIT_STRING = 0x03
const OCTET_STRING = 0x04
const OBJECT_IDENTIFIER = 0x06
const UTF8_STRING = 0x0c
const UTC_TIME = 0x17
const GENERALIZED_TIME = 0x18
const SEQUENCE = 0x30
const SET = 0x31
const EXPLICIT = 0xa0
const IMPLICIT = 0x80

/** Object identifiers, as DER encodes them. */
const ECDSA_WITH_SHA256 = '2a8648ce3d040302'
const COMMON_NAME = '550403'
const SUBJECT_KEY_IDENTIFIER = '551d0e'
const KEY_USAGE = '551d0f'
const SUBJECT_ALT_NAME = '551d11'
const BASIC_CONSTRAINTS = '551d13'
const AUTHORITY_KEY_IDENTIFIER = '551d23'
const EXTENDED_KEY_USAGE = '551d25'
const SERVER_AUTH = '2b06010505070301'
const CLIENT_AUTH = '2b06010505070302'

/** A certificate in PEM, signed with ECDSA and SHA-256: the issuer's key is one of P-256. */
export function makeCertificate(certificate: Certificate): string {
  const { commonName, publicKey, issuer, notBefore, notAfter } = certificate
  const algorithm = der(SEQUENCE, oid(ECDSA_WITH_SHA256))
  const content = der(
    SEQUENCE,
    der(EXPLICIT | 0, der(INTEGER, Buffer.from([2]))),
    der(INTEGER, serialNumber()),
    algorithm,
    distinguishedName(issuer.commonName),
    der(SEQUENCE, time(notBefore), time(notAfter)),
    distinguishedName(commonName),
    publicKey.export({ type: 'spki', format: 'der' }),
    der(EXPLICIT | 3, der(SEQUENCE, ...extensions(certificate))),
  )
  const signature = sign('sha256', content, { key: issuer.privateKey, dsaEncoding: 'der' })
  const lines = der(SEQUENCE, content, algorithm, bitString(signature, 0))
    .toString('base64')
    .replace(/.{1,64}/g, '$&\n')
  return `-----BEGIN CERTIFICATE-----\n${lines}-----END CERTIFICATE-----\n`
}

/** The bytes by which a certificate names its server: one that was made for these names, in this order, has them. */
export function subjectAltName(names: readonly string[]): Buffer {
  return extension(SUBJECT_ALT_NAME, der(SEQUENCE, ...names.map(generalName)))
}

function extensions({ use, publicKey, issuer }: Certificate): readonly Buffer[] {
  const authority = use === 'authority'
  // digitalSignature, or keyCertSign and cRLSign.
  const usage = authority ? bitString(Buffer.from([0x06]), 1) : bitString(Buffer.from([0x80]), 7)
  const issuerId = der(IMPLICIT | 0, keyIdentifier(createPublicKey(issuer.privateKey)))
  const all = [
    extension(BASIC_CONSTRAINTS, der(SEQUENCE, ...(authority ? [der(BOOLEAN, Buffer.from([0xff]))] : [])), true),
    extension(KEY_USAGE, usage, true),
    extension(SUBJECT_KEY_IDENTIFIER, der(OCTET_STRING, keyIdentifier(publicKey))),
    extension(AUTHORITY_KEY_IDENTIFIER, der(SEQUENCE, issuerId)),
  ]
  if (!authority) {
    const purpose = use === 'client' ? CLIENT_AUTH : SERVER_AUTH
    all.push(extension(EXTENDED_KEY_USAGE, der(SEQUENCE, oid(purpose))))
  }
  if (typeof use === 'object') all.push(subjectAltName(use.names))
  return all
}

function extension(id: string, value: Buffer, critical = false): Buffer {
  const flag = critical ? [der(BOOLEAN, Buffer.from([0xff]))] : []
  return der(SEQUENCE, oid(id), ...flag, der(OCTET_STRING, value))
}

function generalName(name: string): Buffer {
  const address = isIP(name)
  if (address === 0) return der(IMPLICIT | 2, Buffer.from(name, 'ascii'))
  return der(IMPLICIT | 7, address === 4 ? Buffer.from(name.split('.').map(Number)) : ipv6Bytes(name))
}

function ipv6Bytes(address: string): Buffer {
  // The URL parser brings every notation into the one with hexadecimal groups alone.
  const [head = '', tail] = new URL(`http://[${address}]`).hostname.slice(1, -1).split('::')
  const groups = (text: string): string[] => text.split(':').filter((group) => group !== '')
  const [before, after] = [groups(head), groups(tail ?? '')]
  const zeros = Array.from({ length: 8 - before.length - after.length }, () => '0')
  return Buffer.from([...before, ...zeros, ...after].map((group) => group.padStart(4, '0')).join(''), 'hex')
}

/** Tells authorities of the same name apart while one follows the other. */
function keyIdentifier(key: KeyObject): Buffer {
  const spki = key.export({ type: 'spki', format: 'der' })
  return createHash('sha256').update(spki).digest().subarray(0, 20)
}

/** Positive, and as long as one that starts with any other byte (RFC 5280 §4.1.2.2). */
function serialNumber(): Buffer {
  const bytes = randomBytes(16)
  bytes[0] = (bytes[0]! & 0x7f) | 0x40
  return bytes
}

function distinguishedName(commonName: string): Buffer {
  const value = der(UTF8_STRING, Buffer.from(commonName, 'utf8'))
  return der(SEQUENCE, der(SET, der(SEQUENCE, oid(COMMON_NAME), value)))
}

/** Two digits of the year until 2049, four after it (RFC 5280 §4.1.2.5). */
function time(date: Date): Buffer {
  const text = `${date.toISOString().slice(0, 19).replace(/[-T:]/g, '')}Z`
  return date.getUTCFullYear() < 2050
    ? der(UTC_TIME, Buffer.from(text.slice(2), 'ascii'))
    : der(GENERALIZED_TIME, Buffer.from(text, 'ascii'))
}

function oid(encoded: string): Buffer {
  return der(OBJECT_IDENTIFIER, Buffer.from(encoded, 'hex'))
}

function bitString(bytes: Buffer, unusedBits: number): Buffer {
  return der(BIT_STRING, Buffer.from([unusedBits]), bytes)
}

function der(tag: number, ...parts: readonly Buffer[]): Buffer {
  const content = Buffer.concat(parts)
  const { length } = content
  const size = length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff]
  return Buffer.concat([Buffer.from([tag, ...size]), content])
}
