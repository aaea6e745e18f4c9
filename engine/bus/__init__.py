"""The bus: how processes of e-MASS hand work, facts and questions to each other. Its contract is `api`."""
