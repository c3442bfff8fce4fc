/**
 * One task: the type bytes of the protocol and the limits of what each side may send.
 *
 * Contract: names are those of the message formats in the PostgreSQL documentation, 54.7. Limits are PostgreSQL's own
 * (`PQ_SMALL_MESSAGE_LIMIT` and `PQ_LARGE_MESSAGE_LIMIT` in libpq.h, used by SocketBackend in postgres.c).
 */
import { frameRules } from './frames.js';

export const FRONTEND = {
  bind: 0x42,
  close: 0x43,
  copyData: 0x64,
  copyDone: 0x63,
  copyFail: 0x66,
  describe: 0x44,
  execute: 0x45,
  flush: 0x48,
  functionCall: 0x46,
  parse: 0x50,
  password: 0x70,
  query: 0x51,
  sync: 0x53,
  terminate: 0x58,
} as const;

export const BACKEND = {
  authentication: 0x52,
  backendKeyData: 0x4b,
  bindComplete: 0x32,
  closeComplete: 0x33,
  commandComplete: 0x43,
  copyBothResponse: 0x57,
  copyData: 0x64,
  copyDone: 0x63,
  copyInResponse: 0x47,
  copyOutResponse: 0x48,
  dataRow: 0x44,
  emptyQueryResponse: 0x49,
  errorResponse: 0x45,
  functionCallResponse: 0x56,
  negotiateProtocolVersion: 0x76,
  noData: 0x6e,
  noticeResponse: 0x4e,
  notificationResponse: 0x41,
  parameterDescription: 0x74,
  parameterStatus: 0x53,
  parseComplete: 0x31,
  portalSuspended: 0x73,
  readyForQuery: 0x5a,
  rowDescription: 0x54,
} as const;

/** Transaction status of ReadyForQuery. */
export const STATUS = { idle: 0x49, inTransaction: 0x54, failed: 0x45 } as const;

const SMALL_BYTES = 10_000;
const LARGE_BYTES = 0x3fff_fffe;
/** A client's frame longer than this passes in parts, so that no message is held in memory whole. */
export const CLIENT_STREAM_BYTES = 65_536;
/** A named Parse must be known whole: its text is the key under which it is prepared on every server. */
const PARSE_BYTES = 64 * 1024 * 1024;

/** What a client may send once it is logged in. */
export const CLIENT_RULES = frameRules([
  { types: 'CDEHScfX', lengthMax: SMALL_BYTES },
  { types: 'P', lengthMax: PARSE_BYTES },
  { types: 'QBFd', lengthMax: LARGE_BYTES, streamFrom: CLIENT_STREAM_BYTES },
]);

/** What anybody may send while it logs in. */
export const LOGIN_RULES = frameRules([{ types: 'pRESNKZvX', lengthMax: 65_536 }]);

/** What a server may send. Rows pass in parts; what is looked into comes whole. */
export const SERVER_RULES = frameRules([
  { types: '123CEISZnsGHWRKvc', lengthMax: LARGE_BYTES },
  { types: 'DTtVdNA', lengthMax: LARGE_BYTES, streamFrom: 5 },
]);
