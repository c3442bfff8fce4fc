# One task: the image of the proxy and worker: built JavaScript, production packages, no build tools.
FROM node:20.20.2-bookworm-slim AS build
WORKDIR /build
COPY package.json package-lock.json .npmrc ./
RUN npm ci
COPY tsconfig.json tsconfig.build.json ./
COPY scripts ./scripts
COPY src ./src
COPY workflows ./workflows
COPY activities ./activities
COPY bench ./bench
COPY test ./test
RUN npm run build

FROM node:20.20.2-bookworm-slim
ENV NODE_ENV=production
WORKDIR /opt/cutover
COPY package.json package-lock.json .npmrc ./
# Optional packages are embedded PostgreSQLs, for the demo and the tests.
RUN npm ci --omit=dev --omit=optional && npm cache clean --force
COPY --from=build /build/dist ./dist
USER node
EXPOSE 6432
ENTRYPOINT ["node", "/opt/cutover/dist/src/cli/main.js"]
CMD ["serve", "--config", "/etc/cutover/pgdog.toml", "--users", "/etc/cutover/users.toml"]
