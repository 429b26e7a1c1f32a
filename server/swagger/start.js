SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#api",
  deepLinking: true,
  validatorUrl: null, // nothing is sent to another host
  persistAuthorization: false,
});
