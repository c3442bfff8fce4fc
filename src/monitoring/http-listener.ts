/**
 * One task: answer GET requests for a few fixed pages, to whoever asks, without letting anybody use up more than a little.
 *
 * Every connection, header, request and answer has a limit: who is slow, says too much or does not read is cut off, and the proxy's clients
 * notice nothing of it.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { messageOf } from '../errors/errors.js';
import { listenAt, type Inherit } from '../proxy/inherited.js';
import type { Logger } from '../proxy/logger.js';

export interface Page {
  readonly status: number;
  readonly type: string;
  readonly body: string;
}

/** What is found at each path. A page is bounded in time by itself. */
export type Pages = ReadonlyMap<string, () => Page | Promise<Page>>;

const CONNECTIONS_MAX = 64;
const HEADER_BYTES_MAX = 8_192;
const HEADERS_MAX = 64;
/** To send a whole request. */
const REQUEST_TIMEOUT_MS = 5_000;
const IDLE_TIMEOUT_MS = 10_000;
/** Without anything being read or written: who does not take its answer. */
const SILENCE_TIMEOUT_MS = 15_000;
const CHECK_MS = 1_000;
const REQUESTS_OF_CONNECTION_MAX = 1_000;

const TEXT = 'text/plain; charset=utf-8';

export class HttpListener {
  readonly server: Server;

  private constructor(server: Server) {
    this.server = server;
  }

  /** Resolves once it listens; port 0 lets the operating system choose. @throws the error of listen(), as EADDRINUSE */
  static async open(
    { host, port, inherit }: { readonly host: string; readonly port: number; readonly inherit: Inherit | undefined },
    pages: Pages,
    logger: Logger,
  ): Promise<HttpListener> {
    const server = limited((request, response) => {
      void answer(request, response, pages, logger);
    });
    await listenAt(server, { host, port }, inherit);
    server.on('error', (error) => {
      logger.error({}, `monitoring: ${error.message}`);
    });
    return new HttpListener(server);
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port;
  }

  /** Cuts off who is connected. */
  async close(): Promise<void> {
    const closed = new Promise((resolve) => this.server.close(resolve));
    this.server.closeAllConnections();
    await closed;
  }
}

function limited(listener: (request: IncomingMessage, response: ServerResponse) => void): Server {
  const server = createServer(
    {
      maxHeaderSize: HEADER_BYTES_MAX,
      headersTimeout: REQUEST_TIMEOUT_MS,
      requestTimeout: REQUEST_TIMEOUT_MS,
      keepAliveTimeout: IDLE_TIMEOUT_MS,
      connectionsCheckingInterval: CHECK_MS,
      noDelay: true,
    },
    listener,
  );
  server.maxConnections = CONNECTIONS_MAX;
  server.maxHeadersCount = HEADERS_MAX;
  server.maxRequestsPerSocket = REQUESTS_OF_CONNECTION_MAX;
  // Without a listener for it, a socket that times out is destroyed.
  server.timeout = SILENCE_TIMEOUT_MS;
  return server;
}

async function answer(request: IncomingMessage, response: ServerResponse, pages: Pages, logger: Logger): Promise<void> {
  const { method = '', url = '' } = request;
  const page = pages.get(url.split('?', 1)[0] ?? '');
  if (page === undefined) {
    send(response, { status: 404, type: TEXT, body: 'not found\n' });
  } else if (method !== 'GET' && method !== 'HEAD') {
    // What else it sends is not read.
    response.setHeader('allow', 'GET, HEAD');
    response.setHeader('connection', 'close');
    send(response, { status: 405, type: TEXT, body: 'only GET and HEAD\n' });
  } else {
    try {
      send(response, await page());
    } catch (error) {
      logger.error({}, `monitoring: ${messageOf(error)}`);
      send(response, { status: 500, type: TEXT, body: 'internal error\n' });
    }
  }
}

function send(response: ServerResponse, { status, type, body }: Page): void {
  const bytes = Buffer.from(body);
  response.writeHead(status, { 'content-type': type, 'content-length': bytes.length, 'cache-control': 'no-store' });
  response.end(bytes);
}
