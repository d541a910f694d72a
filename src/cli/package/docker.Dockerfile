# @MODEL@ in an image: photonc's own with the bundle in it. BUNDLE is its directory.
#
#   docker build -f examples/serve/Dockerfile -t @IMAGE@ .          # once, in photonc's repository
#   docker build --build-context bundle=BUNDLE -t @DNS@ .           # here
#   docker run --rm -p 127.0.0.1:8000:8000 --read-only --cap-drop ALL @DNS@
ARG PHOTONC=@IMAGE@
FROM ${PHOTONC}
COPY --from=bundle / /models/@MODEL@
CMD ["/models/@MODEL@", "--served-model-name", "@MODEL@", "--host", "0.0.0.0", "--port", "8000"@BACKEND@]
